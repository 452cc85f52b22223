"""How the service does, in plain words, from what systemd knows of it."""

from dataclasses import dataclass

from gateway.cli.service_install import UNIT_FILE, Place
from gateway.cli.service_unit import USER, is_ours

_BAD_CONFIGURATION = 78
_PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "Result",
    "ExecMainStatus",
    "MainPID",
    "NRestarts",
    "StatusText",
    "ActiveEnterTimestamp",
)


@dataclass(slots=True, frozen=True)
class ServiceStatus:
    """How the service does."""

    installed: bool
    state: str
    """As systemd calls it: `active`, `activating`, `inactive`, `failed`, …; `not installed` without a unit."""
    starts_with_the_machine: bool
    since: str
    pid: int
    """0 while none runs."""
    restarts: int
    """By systemd, since it was started."""
    says: str
    """What the gateway says of itself."""
    edited: bool
    """Whether somebody has edited the unit."""
    words: str
    """What it amounts to, and what to do next."""

    @property
    def is_well(self) -> bool:
        """Whether it runs."""
        return self.state == "active"


def service_status(place: Place) -> ServiceStatus:
    """Ask systemd. Raises NeurogateError."""
    said = place.systemctl("show", USER, f"--property={','.join(_PROPERTIES)}")
    known = {name: value for name, _, value in (line.partition("=") for line in said.splitlines())}
    installed = known.get("LoadState", "not-found") != "not-found"
    state = known.get("ActiveState", "unknown") if installed else "not installed"
    return ServiceStatus(
        installed=installed,
        state=state,
        starts_with_the_machine=known.get("UnitFileState") == "enabled",
        since=known.get("ActiveEnterTimestamp", "") if state == "active" else "",
        pid=int(known.get("MainPID") or 0),
        restarts=int(known.get("NRestarts") or 0),
        says=known.get("StatusText", ""),
        edited=_is_edited(place),
        words=_words(known, state),
    )


def _words(known: dict[str, str], state: str) -> str:
    if state == "not installed":
        return "The service is not installed. To install it: sudo neurogate service install"
    if state == "active":
        return f"The service runs{_since(known)}."
    if state == "failed" or known.get("SubState") == "auto-restart":
        return _failed(known)
    if state == "activating":
        return "The service is being started; with a long repair or migration this takes its time."
    return f"The service does not run ({state}). To start it: sudo systemctl start {USER}"


def _failed(known: dict[str, str]) -> str:
    result, code = known.get("Result", ""), int(known.get("ExecMainStatus") or 0)
    if (result, code) == ("exit-code", _BAD_CONFIGURATION):
        return (
            f"The configuration cannot be used, so the service is not started again. What is wrong: sudo -u {USER}"
            f" neurogate check; then: sudo systemctl start {USER}"
        )
    next_try = " and is started again soon" if known.get("SubState") == "auto-restart" else ""
    return f"The service failed ({_why(result, code)}){next_try}. Why: journalctl -u {USER} -n 50"


def _since(known: dict[str, str]) -> str:
    at = known.get("ActiveEnterTimestamp", "")
    return f" since {at}" if at else ""


def _why(result: str, code: int) -> str:
    match result:
        case "exit-code":
            return f"exit code {code}"
        case "watchdog":
            return "nothing got on: the disk did not answer, or it was stuck"
        case "oom-kill":
            return "the machine had no memory left for it"
        case "timeout":
            return "it took too long"
        case _:
            return result or "for a reason that systemd does not say"


def _is_edited(place: Place) -> bool:
    try:
        return not is_ours(place.at(UNIT_FILE).read_text("utf-8"))
    except OSError:
        return False
