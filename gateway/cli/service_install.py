"""What makes a gateway a service of its machine, and what ends that, step by step.

Each step says what it does before it does it, so that a trial is the same list without the doing. Everything may be
done again: what is there already stays. A unit that somebody has edited is not replaced, and no data is removed, unless
that was asked for.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gateway.cli.service_unit import CONFIG, FOLDER, UNIT, USER, Unit, is_ours
from gateway.config.reference import commented_file
from gateway.model.errors import AlreadyExists, ConfigError, NeurogateError

UNIT_FILE = Path("/etc/systemd/system") / UNIT
USERS_FILE = Path("/etc/sysusers.d/neurogate.conf")
_USERS = f'u {USER} - "neurogate" {FOLDER}\nm {USER} dialout\n'
"""See sysusers.d(5); the group may open serial ports."""

_HIDDEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))  # noqa: S108 - none is written to
"""What the unit does not let the service see."""
_PIPX = "sudo env PIPX_HOME=/opt/pipx PIPX_BIN_DIR=/usr/local/bin pipx install neurogate-*.whl"
_COMMAND_TIMEOUT_S = 180.0  # starting may mean a long repair


@dataclass(slots=True, frozen=True)
class Step:
    """One thing to do."""

    words: str
    do: Callable[[], None]


@dataclass(slots=True, frozen=True)
class Place:
    """A machine, or a folder that will become the root of one: there nothing is started."""

    root: Path = Path("/")

    @property
    def is_live(self) -> bool:
        """Whether it is this machine."""
        return self.root == Path("/")

    def at(self, path: Path) -> Path:
        """Return where that file of it is now."""
        return self.root / path.relative_to("/")

    def systemctl(self, *arguments: str) -> str:
        """Return what it says. Raises NeurogateError."""
        return self._run("systemctl", *arguments)

    def make_users(self) -> None:
        """Make the users that are described. Raises NeurogateError."""
        self._run("systemd-sysusers", USERS_FILE.name)

    def give(self, path: Path, group: str, mode: int, *, owner: str = "root") -> None:
        """Set the owner, group and mode of a file; whoever is not root sets the mode alone."""
        self.at(path).chmod(mode)
        if os.geteuid() == 0:
            os.chown(self.at(path), self._number("passwd", owner), self._number("group", group))

    def is_owner(self, path: Path, owner: str) -> bool:
        """Whether the file is that user's. Raises NeurogateError when there is no such user."""
        return self.at(path).stat().st_uid == self._number("passwd", owner)

    def _number(self, database: str, name: str) -> int:
        if name == "root":
            return 0
        for line in self.at(Path("/etc") / database).read_text("utf-8").splitlines():
            found, _, number, *_ = line.split(":")
            if found == name:
                return int(number)
        raise NeurogateError(f"There is no {name} in /etc/{database}.", hint=f"Run: systemd-sysusers {USERS_FILE}")

    def _run(self, program: str, *arguments: str) -> str:
        prefix = () if self.is_live else (f"--root={self.root}",)
        return run(program, *prefix, *arguments)


def run(*command: str) -> str:
    """Return what a program of the system says. Raises NeurogateError when it fails, or is not there."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed words
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=_COMMAND_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise NeurogateError(
            f"There is no {command[0]} here: this machine does not run systemd.",
            hint="Let whatever starts services here run: neurogate run",
        ) from None
    except subprocess.TimeoutExpired:
        raise NeurogateError(f"{' '.join(command)} did not end.", hint=f"journalctl -u {USER} may say why.") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise NeurogateError(f"{' '.join(command)} failed: {said}", hint=f"journalctl -u {USER} may say more.")
    return done.stdout


def find_program() -> Path:
    """Return the executable that the service starts. Raises ConfigError when the service could not see it."""
    beside = Path(sys.prefix) / "bin" / "neurogate"
    found = beside if beside.exists() else Path(shutil.which("neurogate") or "")
    if not found.is_absolute():
        raise ConfigError("There is no program neurogate.", hint=f"Install it: {_PIPX}")
    for path in (found.resolve(), Path(sys.executable).resolve()):
        if _is_hidden(path):
            raise ConfigError(f"A service is not let see {path}.", hint=f"Install it where all can: {_PIPX}")
    return found


def install_steps(place: Place, program: Path, *, force: bool) -> Iterator[Step]:
    """Yield what has to be done. Raises ConfigError, or AlreadyExists for a unit that was edited."""
    data_dir = _data_dir(place)
    unit = Unit(program, CONFIG, data_dir, _systemd_version()).text()
    there = _unit_there(place)
    if there is not None and there != unit and not is_ours(there) and not force:
        raise AlreadyExists(
            f"{UNIT_FILE} was edited.",
            hint=f"Move what you changed to: systemctl edit {USER}; then: neurogate service install --force"
            f" (which keeps it as {_kept(UNIT_FILE).name})",
        )
    yield Step(f"system user {USER}, in the group dialout ({USERS_FILE})", lambda: _make_user(place))
    if place.at(CONFIG).exists():
        yield Step(f"{CONFIG} stays; the service may read it", lambda: _give_config(place))
    else:
        yield Step(f"{CONFIG}, with a comment for every setting", lambda: _write_config(place))
    yield Step(f"{data_dir}, for {USER} alone", lambda: _make_data_dir(place, data_dir))
    if there == unit:
        yield Step(f"{UNIT_FILE} is as it should be", lambda: None)
    else:
        yield from _unit_steps(place, there, unit)
    if place.is_live:
        yield Step("systemd reads its units again", lambda: _ignore(place.systemctl("daemon-reload")))
    yield Step("starts with the machine", lambda: _ignore(place.systemctl("enable", UNIT)))
    if place.is_live:
        yield Step("(re)started", lambda: _ignore(place.systemctl("restart", UNIT)))


def _unit_steps(place: Place, there: str | None, unit: str) -> Iterator[Step]:
    if there is not None and not is_ours(there):
        kept = _kept(UNIT_FILE)
        yield Step(f"the edited {UNIT_FILE} is kept as {kept}", lambda: _write(place, kept, there, 0o644))
    yield Step(str(UNIT_FILE), lambda: _write(place, UNIT_FILE, unit, 0o644))


def uninstall_steps(place: Place, *, purge: bool) -> Iterator[Step]:
    """Yield what has to be done."""
    there = _unit_there(place)
    if there is not None:
        words = "no longer starts with the machine" + (", and stopped" if place.is_live else "")
        now = ("--now",) if place.is_live else ()
        yield Step(words, lambda: _ignore(place.systemctl("disable", *now, UNIT)))
        if not is_ours(there):
            kept = _kept(UNIT_FILE)
            yield Step(f"the edited {UNIT_FILE} is kept as {kept}", lambda: _write(place, kept, there, 0o644))
        yield Step(f"{UNIT_FILE} is removed", place.at(UNIT_FILE).unlink)
        if place.is_live:
            yield Step("systemd reads its units again", lambda: _ignore(place.systemctl("daemon-reload")))
    if not purge:
        yield Step(f"the data, {CONFIG.parent} and the user {USER} stay", lambda: None)
        return
    with suppress(ConfigError):
        if (data_dir := _data_dir(place)) != FOLDER:
            yield Step(f"{data_dir} stays: what is not in {FOLDER} is yours to remove", lambda: None)
    for folder in (FOLDER, CONFIG.parent):
        if place.at(folder).exists():
            yield Step(f"{folder} is removed with all that is in it", partial(shutil.rmtree, place.at(folder)))
    if place.at(USERS_FILE).exists():
        yield Step(f"{USERS_FILE} is removed; to remove the user as well: userdel {USER}", place.at(USERS_FILE).unlink)


def is_installed(place: Place) -> bool:
    """Whether there is a unit."""
    return _unit_there(place) is not None


def _unit_there(place: Place) -> str | None:
    try:
        return place.at(UNIT_FILE).read_text("utf-8")
    except FileNotFoundError:
        return None


def _kept(path: Path) -> Path:
    return path.with_name(path.name + ".edited")


def _data_dir(place: Place) -> Path:
    """Return where the configuration has the data; it is not validated, as `neurogate check` does that."""
    path = place.at(CONFIG)
    if not path.exists():
        return FOLDER
    try:
        gateway = tomllib.loads(path.read_text("utf-8")).get("gateway", {})
    except (OSError, ValueError) as error:
        raise ConfigError(f"{CONFIG} cannot be read: {error}.", hint="Run: neurogate check") from None
    named = gateway.get("data_dir") if isinstance(gateway, dict) else None
    if not isinstance(named, str):
        raise ConfigError(
            f"{CONFIG} does not say where the data is, so it would be in {CONFIG.parent}.",
            hint=f'Write there, under [gateway]: data_dir = "{FOLDER}"; and move what is in {CONFIG.parent}/data.',
        )
    if _is_hidden(data_dir := CONFIG.parent / named):
        raise ConfigError(
            f"A service is not let see {data_dir}.", hint=f'Set gateway.data_dir = "{FOLDER}", and move what is there.'
        )
    return data_dir


def _is_hidden(path: Path) -> bool:
    return any(path.is_relative_to(hidden) for hidden in _HIDDEN)


def _systemd_version() -> int:
    found = re.match(r"systemd (\d+)", run("systemctl", "--version"))
    return int(found[1]) if found else 0


def _make_user(place: Place) -> None:
    _write(place, USERS_FILE, _USERS, 0o644)
    place.make_users()


def _write_config(place: Place) -> None:
    text = commented_file().replace('\n#data_dir = "data"\n', f'\ndata_dir = "{FOLDER}"\n', 1)
    assert f'"{FOLDER}"' in text
    _write(place, CONFIG, text, 0o640)
    _give_config(place)


def _give_config(place: Place) -> None:
    place.give(CONFIG.parent, USER, 0o750)
    place.give(CONFIG, USER, 0o640)


def _make_data_dir(place: Place, data_dir: Path) -> None:
    """Make the folder, or take an empty one over. Raises ConfigError for one with what the service could not use."""
    folder = place.at(data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        place.give(data_dir, USER, 0o700, owner=USER)
    elif os.geteuid() == 0 and not place.is_owner(data_dir, USER):
        raise ConfigError(
            f"{data_dir} is not the user {USER}'s, and not empty: the service could not use it.",
            hint=f"If it is the gateway's data: sudo chown -R {USER}: {data_dir}; else set gateway.data_dir."
            " Then run this again.",
        )


def _write(place: Place, path: Path, text: str, mode: int) -> None:
    """Write a file whole or not at all."""
    target = place.at(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.new")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.chmod(mode)
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)


def _ignore(_: str) -> None:
    """What was said is of no interest when it worked."""


def carry_out(steps: Sequence[Step], *, only_say: bool) -> None:
    """Say and do each step. Raises NeurogateError for what the system refuses."""
    for step in steps:
        print(f"{'would: ' if only_say else ''}{step.words}")
        if not only_say:
            try:
                step.do()
            except PermissionError as error:
                raise NeurogateError(f"{error.filename}: {error.strerror}.", hint="Run it with sudo.") from None
            except OSError as error:
                raise NeurogateError(f"{error.filename or 'A file'}: {error.strerror}.") from None
