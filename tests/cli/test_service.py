"""`neurogate service`, with systemd's own tools on a root of our own; only what needs a running systemd is imitated."""

import json
import os
import stat
import sys
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import command_line
from gateway.cli.service_install import find_program
from gateway.cli.service_unit import is_ours
from gateway.config import load
from gateway.model.errors import ConfigError, NeurogateError

PROGRAM = "/usr/bin/true"
UNIT = "etc/systemd/system/neurogate.service"
WANTED = "etc/systemd/system/multi-user.target.wants/neurogate.service"
CONFIG = "etc/neurogate/neurogate.toml"
DATA = "var/lib/neurogate"


class Machine:
    """A folder that is the root of a machine which does not run."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def service(self, *arguments: str, path: str = os.environ["PATH"], answer: str = "") -> tuple[int, str, str]:
        for name in ("shadow", "gshadow"):  # their mode is 0: only root reads them all the same
            with suppress(FileNotFoundError):
                (self.root / "etc" / name).chmod(0o600)
        done = CliRunner().invoke(command_line(), ["service", *arguments], env={"PATH": path}, input=answer)
        if isinstance(done.exception, NeurogateError):
            return done.exception.exit_code, done.stdout, str(done.exception)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, done.stderr

    def install(self, *more: str) -> tuple[int, str, str]:
        return self.service("install", "--root", str(self.root), "--program", PROGRAM, *more)

    def uninstall(self, *more: str, answer: str = "") -> tuple[int, str, str]:
        return self.service("uninstall", "--root", str(self.root), *more, answer=answer)

    def files(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir()}

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def uid(self) -> int:
        """Whose the data directory has to be: only root can give it to the user that was made."""
        if os.geteuid() != 0:
            return os.geteuid()
        return int(self.read("etc/passwd").split("neurogate:x:")[1].split(":")[0])

    def mode(self, path: str) -> int:
        return stat.S_IMODE((self.root / path).stat().st_mode)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_trial_says_everything_and_does_nothing(machine: Machine) -> None:
    code, out, err = machine.install("--dry-run")
    assert (code, err, machine.files()) == (0, "", set())
    assert all(line.startswith("would: ") for line in out.splitlines())
    assert "system user neurogate" in out
    code, out, err = machine.service(
        "install", "--dry-run", "--program", PROGRAM
    )  # on this machine, without being root
    assert (code, err) == (0, "")
    assert "would: (re)started" in out


def test_it_makes_user_configuration_folder_and_unit_and_starts_with_the_machine(machine: Machine) -> None:
    assert machine.install()[0] == 0
    assert "neurogate:x:" in machine.read("etc/passwd")
    (dialout,) = [line for line in machine.read("etc/group").splitlines() if line.startswith("dialout:")]
    assert dialout.endswith(":neurogate")
    assert (machine.mode("etc/neurogate"), machine.mode(CONFIG), machine.mode(DATA)) == (0o750, 0o640, 0o700)
    assert load(machine.root / CONFIG, {}).settings.gateway.data_dir == Path("/var/lib/neurogate")
    assert is_ours(machine.read(UNIT))
    assert f"ExecStart={PROGRAM} run --config /etc/neurogate/neurogate.toml" in machine.read(UNIT)
    assert (machine.root / WANTED).is_symlink()
    if os.geteuid() == 0:
        assert (machine.root / DATA).stat().st_uid == machine.uid()
        assert ((machine.root / CONFIG).stat().st_uid, (machine.root / CONFIG).stat().st_gid != 0) == (0, True)


def test_again_after_an_upgrade_what_is_there_stays_and_the_unit_is_renewed(machine: Machine) -> None:
    machine.install()
    (machine.root / CONFIG).write_text(machine.read(CONFIG) + "# mine\n")
    (machine.root / DATA / "log.db").write_text("readings")
    before = machine.read(UNIT)
    upgraded = ("install", "--root", str(machine.root), "--program", "/usr/bin/false")
    code, out, _ = machine.service(*upgraded)
    assert (code, "is as it should be" in out) == (0, False)
    assert machine.read(UNIT) == before.replace(PROGRAM, "/usr/bin/false").replace(*seals(before, machine.read(UNIT)))
    assert machine.read(CONFIG).endswith("# mine\n")
    assert machine.read(f"{DATA}/log.db") == "readings"
    assert (
        "is as it should be"
        in machine.service("install", "--root", str(machine.root), "--program", "/usr/bin/false")[1]
    )


def seals(*texts: str) -> tuple[str, str]:
    first, second = (text.splitlines()[-1] for text in texts)
    return first, second


def test_an_edited_unit_is_not_replaced_without_a_word_and_never_lost(machine: Machine) -> None:
    machine.install()
    edited = machine.read(UNIT).replace("WatchdogSec=60s", "WatchdogSec=5min")
    (machine.root / UNIT).write_text(edited)
    for more in ((), ("--dry-run",)):
        code, _, err = machine.install(*more)
        assert (code, "was edited" in err, "systemctl edit neurogate" in err) == (1, True, True)
    assert machine.read(UNIT) == edited
    code, out, _ = machine.install("--force")
    assert (code, "is kept as" in out) == (0, True)
    assert (is_ours(machine.read(UNIT)), machine.read(f"{UNIT}.edited")) == (True, edited)


def test_taken_away_it_leaves_the_data(machine: Machine) -> None:
    machine.install()
    (machine.root / DATA / "log.db").write_text("readings")
    assert machine.uninstall("--dry-run")[0] == 0
    assert UNIT in machine.files()
    code, out, err = machine.uninstall()
    assert (code, err, "stay" in out) == (0, "", True)
    assert {UNIT, WANTED} & machine.files() == set()
    assert {CONFIG, f"{DATA}/log.db"} <= machine.files()
    assert machine.uninstall()[:2] == (
        0,
        f"There is no /{UNIT}.\nthe data, /etc/neurogate and the user neurogate stay\n",
    )


def test_the_data_goes_only_when_that_is_confirmed(machine: Machine) -> None:
    machine.install()
    elsewhere = machine.root / "mnt/ssd"
    elsewhere.mkdir(parents=True)
    (machine.root / CONFIG).write_text('[gateway]\ndata_dir = "/mnt/ssd"\n')
    assert machine.uninstall("--purge", answer="n\n")[0] == 1
    assert {UNIT, CONFIG} <= machine.files()
    code, out, _ = machine.uninstall("--purge", answer="y\n")
    assert (code, "/mnt/ssd stays" in out) == (0, True)
    assert (machine.root / DATA).exists() is False
    assert (machine.root / CONFIG).parent.exists() is False
    assert elsewhere.exists()


def test_data_elsewhere_is_made_for_the_user_and_may_be_written(machine: Machine) -> None:
    config = machine.root / CONFIG
    config.parent.mkdir(parents=True)
    config.write_text('[gateway]\ndata_dir = "/mnt/ssd/neurogate"\n')
    assert machine.install()[0] == 0
    assert machine.mode("mnt/ssd/neurogate") == 0o700
    assert "ReadWritePaths=/mnt/ssd/neurogate\n" in machine.read(UNIT)
    assert tomllib.loads(config.read_text()) == {"gateway": {"data_dir": "/mnt/ssd/neurogate"}}


def test_an_empty_folder_that_is_there_becomes_the_users_own(machine: Machine) -> None:
    (machine.root / DATA).mkdir(parents=True)
    (machine.root / DATA).chmod(0o755)
    assert machine.install()[0] == 0
    assert machine.mode(DATA) == 0o700
    assert (machine.root / DATA).stat().st_uid == machine.uid()


def test_a_folder_with_what_is_somebody_elses_is_left_alone_and_told_before_there_is_a_unit(machine: Machine) -> None:
    kept = machine.root / DATA / "holiday.jpg"
    kept.parent.mkdir(parents=True)
    kept.parent.chmod(0o755)  # whatever the umask
    kept.touch()
    if os.geteuid() != 0:  # who cannot give files to another user takes what is there, as all of it is theirs
        assert machine.install()[0] == 0
        return
    code, _, err = machine.install()
    assert (code, f"sudo chown -R neurogate: /{DATA}; else set gateway.data_dir" in err) == (78, True)
    assert (machine.mode(DATA), kept.parent.stat().st_uid, kept.stat().st_uid) == (0o755, 0, 0)
    assert UNIT not in machine.files()
    os.chown(kept.parent, machine.uid(), -1)
    assert machine.install()[0] == 0
    assert machine.mode(DATA) == 0o755  # it is the user's, who may let others in


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[gateway]\n", 'data_dir = "/var/lib/neurogate"'),
        ("[gateway", "neurogate check"),
        ('gateway.data_dir = "/home/pi/data"', "not let see"),
    ],
)
def test_a_configuration_that_a_service_cannot_use_is_told_before_anything_is_done(
    machine: Machine, text: str, words: str
) -> None:
    config = machine.root / CONFIG
    config.parent.mkdir(parents=True)
    config.write_text(text)
    code, _, err = machine.install()
    assert (code, words in err, machine.files()) == (78, True, {CONFIG})
    assert machine.uninstall()[0] == 0


def test_a_program_that_the_service_could_not_see_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("gateway.cli.service_install._HIDDEN", (tmp_path,))  # it need not be below /tmp
    with pytest.raises(ConfigError, match="There is no program neurogate"):
        find_program()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/neurogate").touch()
    with pytest.raises(ConfigError, match="not let see") as raised:
        find_program()
    assert "PIPX_HOME=/opt/pipx" in raised.value.hint


def test_without_rights_or_without_systemd_it_says_so(machine: Machine) -> None:
    running = Path("/run/systemd/system").is_dir()
    if os.geteuid() == 0 and not running:
        code, _, err = machine.service("install", "--program", PROGRAM)
        assert (code, "was not started by systemd" in err) == (1, True)
    elif os.geteuid() != 0:
        code, _, err = machine.service("uninstall")
        assert (code, "Run it with sudo" in err) == (1, True)
    code, _, err = machine.service("install", "--dry-run", "--program", PROGRAM, path="/nowhere")
    assert (code, "does not run systemd" in err) == (1, True)


# A systemctl that answers as one would on a machine that runs


@pytest.fixture
def status(machine: Machine) -> Callable[..., tuple[int, str, str]]:
    def ask(*arguments: str, **properties: str | int) -> tuple[int, str, str]:
        said = "\n".join(f"{name}={value}" for name, value in properties.items())
        fake = machine.root / "systemctl"
        fake.write_text(f"#!/bin/sh\n[ \"$1 $2\" = 'show neurogate' ] || exit 1\ncat <<'END'\n{said}\nEND\n")
        fake.chmod(0o755)
        return machine.service("status", *arguments, path=f"{machine.root}:/usr/bin:/bin")

    return ask


def test_status_says_how_it_does_and_what_to_do(status: Callable[..., tuple[int, str, str]]) -> None:
    active = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled", "MainPID": 7}
    since = {"ActiveEnterTimestamp": "Sat 2026-11-21 12:00:00 UTC"}
    code, out, err = status(**active, **since, StatusText="Takes in readings: 5 since the start", NRestarts=0)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "The service runs since Sat 2026-11-21 12:00:00 UTC.",
        "It says: Takes in readings: 5 since the start",
    ]
    code, out, _ = status("--json", **active, **since)
    found = json.loads(out)
    assert (code, found["state"], found["pid"], found["starts_with_the_machine"]) == (0, "active", 7, True)
    failed = {"LoadState": "loaded", "ActiveState": "failed", "Result": "exit-code"}
    again = {"LoadState": "loaded", "ActiveState": "activating", "SubState": "auto-restart", "Result": "watchdog"}
    cases: list[tuple[str, dict[str, str]]] = [
        ("not installed", {"LoadState": "not-found", "ActiveState": "inactive"}),
        ("sudo systemctl start", {"LoadState": "loaded", "ActiveState": "inactive"}),
        ("being started", {"LoadState": "loaded", "ActiveState": "activating", "SubState": "start"}),
        ("neurogate check", failed | {"ExecMainStatus": "78"}),
        ("exit code 1", failed | {"ExecMainStatus": "1"}),
        ("nothing got on", again),
        ("does not start with the machine", {"LoadState": "loaded", "ActiveState": "inactive"}),
    ]
    for words, properties in cases:
        code, out, _ = status(**properties)
        assert (code, words in out) == (1, True), out
