"""`neurogate backup` and `restore`: under load and without a gateway, whole or not at all."""

import asyncio
import json
import os
import pty
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from gateway.cli.restore import _check as check_restored
from gateway.clock import ManualClock
from gateway.model.errors import BadInput
from gateway.storage.data_dir import DataDir
from gateway.storage.state import State
from tests.gateway_here import GatewayHere
from tests.gateway_process import WAIT_S, reading
from tests.operations.test_while_salvaging import UNFINISHED
from tests.storage.repair.damaged import fill

PASSPHRASE = "correct horse battery staple"


class Backups:
    """A site with two boards and a destination's cursor, and where its backup goes."""

    def __init__(self, folder: Path, *, readings: int = 500) -> None:
        (folder / "old").mkdir()
        self.old = GatewayHere(folder / "old")
        self.new_folder = folder / "new"
        self.file = folder / "site.backup"
        self.secret = folder / "passphrase"
        self.secret.write_text(PASSPHRASE + "\n")
        self.old.start()
        self.kitchen = self.old.json("device", "add", "kitchen")
        if readings:
            self.old.post(self.kitchen["password"], *(reading("kitchen", seq) for seq in range(readings)))

    def backup(self) -> str:
        done = self.old.neurogate("backup", str(self.file), "--passphrase-file", str(self.secret))
        assert (done.returncode, done.stdout.startswith(f"Wrote {self.file}")) == (0, True), done.stderr
        return done.stderr

    def restore(self, *words: str) -> tuple[int, str, str]:
        arguments = ("restore", str(self.file), "--passphrase-file", str(self.secret))
        where = words or ("--config", str(self.new_folder / "neurogate.toml"))
        done = self.old.neurogate(*arguments, *where)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    def restored(self) -> GatewayHere:
        """Return the new machine, with the configuration that came out of the backup."""
        before = (self.new_folder / "neurogate.toml").read_bytes()
        site = GatewayHere(self.new_folder)
        assert (self.new_folder / "neurogate.toml").read_bytes() == before
        return site


@pytest.fixture
def backups(tmp_path: Path) -> Iterator[Backups]:
    backups = Backups(tmp_path)
    yield backups
    backups.old.kill()


def rows(data_dir: Path) -> list[tuple[int, int]]:
    with closing(sqlite3.connect(DataDir(data_dir).log_db)) as db:
        return db.execute("SELECT id, seq FROM device_telemetry_history ORDER BY id").fetchall()


def meta(data_dir: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(DataDir(data_dir).log_db)) as db:
        return db.execute(
            "SELECT value, 0 FROM meta UNION ALL SELECT name, position FROM cursors ORDER BY 1"
        ).fetchall()


@pytest.mark.parametrize("running", [True, False])
def test_a_new_machine_goes_on_where_the_old_one_stood(backups: Backups, *, running: bool) -> None:
    backups.old.stop()
    with closing(sqlite3.connect(DataDir(backups.old.data_dir).log_db, isolation_level=None)) as db:
        db.execute("INSERT INTO cursors (name, position) VALUES ('cloud', 321)")
    if running:
        backups.old.start()
    progress = backups.backup()
    assert "copy: " in progress
    assert "encrypt: " in progress
    assert backups.file.stat().st_mode & 0o777 == 0o600
    assert b"motion_detected" not in backups.file.read_bytes()
    assert not (backups.old.data_dir / "snapshot").exists() or running
    backups.old.stop()
    code, words, _ = backups.restore()
    assert code == 0
    assert "Never let two gateways run from one backup" in words
    assert meta(backups.new_folder / "data") == meta(backups.old.data_dir)
    assert rows(backups.new_folder / "data") == rows(backups.old.data_dir)
    new = backups.restored()
    try:
        new.start()
        assert new.post(backups.kitchen["password"], reading("kitchen", 499), reading("kitchen", 500)) == 202
        listed = [json.loads(line) for line in new.neurogate("buffer", "export").stdout.splitlines()]
        assert [one["seq"] for one in listed] == list(range(501))
        assert int(listed[-1]["id"].rpartition(":")[2]) > 1_000_000_000, "beyond what the old one may have given"
    finally:
        new.kill()


def test_p2_also_of_a_log_that_has_never_held_a_reading(tmp_path: Path) -> None:
    """The old gateway's first readings come after the backup: their ids must not be given again."""
    backups = Backups(tmp_path, readings=0)
    try:
        backups.backup()
        assert backups.restore()[0] == 0
        new = backups.restored()
        new.start()
        try:
            assert new.post(backups.kitchen["password"], reading("kitchen", 0)) == 202
        finally:
            new.kill()
        ((row, _),) = rows(backups.new_folder / "data")
        assert row > 1_000_000_000
    finally:
        backups.old.kill()


def test_readings_that_come_in_meanwhile_are_acknowledged_and_the_copy_is_whole(backups: Backups) -> None:
    stop = threading.Event()
    sent = 500

    def load() -> None:
        nonlocal sent
        while not stop.is_set():
            batch = [reading("kitchen", seq) for seq in range(sent, sent + 50)]
            assert backups.old.post(backups.kitchen["password"], *batch) == 202
            sent += 50

    loading = threading.Thread(target=load)
    loading.start()
    try:
        backups.backup()
    finally:
        stop.set()
        loading.join()
    assert backups.restore()[0] == 0
    copied = rows(backups.new_folder / "data")
    assert [seq for _, seq in copied] == list(range(len(copied))), "everything up to some moment"
    assert 500 <= len(copied) <= sent
    backups.old.stop()
    assert len(rows(backups.old.data_dir)) == sent
    assert not (backups.old.data_dir / "snapshot").exists()


def test_what_is_wrong_changes_nothing(backups: Backups) -> None:
    backups.backup()
    whole = backups.file.read_bytes()
    for content, words in (
        (whole[:-1], "damaged or cut off"),
        (whole[: len(whole) // 2], "damaged or cut off"),
        (whole[:1_000] + b"?" + whole[1_001:], "damaged or cut off"),
        (b"SQLite format 3\0" * 10, "This is no backup"),
    ):
        backups.file.write_bytes(content)
        code, _, err = backups.restore()
        assert (code, words in err) == (1, True)
    backups.file.write_bytes(whole)
    backups.secret.write_text("wrong")
    code, _, err = backups.restore()
    assert (code, "The passphrase is wrong" in err) == (1, True)
    assert not backups.new_folder.exists() or list(backups.new_folder.iterdir()) == []


def test_every_key_comes_back_and_one_that_could_not_is_told_of_at_the_backup(backups: Backups) -> None:
    (backups.old.data_dir / "other-2.key").write_bytes(b"v" * 32)
    backups.backup()
    assert backups.restore()[0] == 0
    assert (backups.new_folder / "data" / "other-2.key").read_bytes() == b"v" * 32
    before = backups.file.read_bytes()
    (backups.old.data_dir / "my old.key").write_bytes(b"o" * 32)
    done = backups.old.neurogate("backup", str(backups.file), "--passphrase-file", str(backups.secret))
    assert (done.returncode, "my old.key cannot be part of a backup" in done.stderr) == (1, True)
    assert backups.file.read_bytes() == before


async def test_a_backup_without_the_readings_of_a_salvage_is_refused(tmp_path: Path) -> None:
    async with State.open(tmp_path / "state.db", b"k" * 32, clock=ManualClock()):
        await fill(tmp_path / "log.db", 10)
    data_dir = DataDir(tmp_path)
    with closing(sqlite3.connect(data_dir.log_db, isolation_level=None)) as db:
        db.execute(UNFINISHED)
    with pytest.raises(BadInput, match="they are missing in it"):
        check_restored(data_dir)


def test_it_goes_into_nothing_that_is_used(backups: Backups) -> None:
    backups.backup()
    before = rows(backups.old.data_dir)
    here = ("--config", str(backups.old.folder / "neurogate.toml"))
    code, _, err = backups.restore(*here)
    assert (code, "Another gateway (pid" in err) == (1, True)
    backups.old.stop()
    code, _, err = backups.restore(*here)
    assert (code, "is not empty" in err) == (1, True)
    assert rows(backups.old.data_dir) == before
    empty = backups.new_folder / "elsewhere"
    empty.mkdir(parents=True)
    code, words, _ = backups.restore(*here, "--data-dir", str(empty))
    assert (code, f'say "{empty}"' in words) == (0, True)
    assert rows(empty) == before


def test_a_terminal_is_asked_twice_for_a_passphrase_and_shows_nothing_of_it(backups: Backups) -> None:
    ours, theirs = pty.openpty()
    backup = backups.old.popen(
        "backup", str(backups.file), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    shown = b""
    for prompt in (b"Passphrase: ", b"confirmation: "):  # only then is what is typed not shown
        while prompt not in shown:
            shown += os.read(ours, 1_000)
        os.write(ours, f"{PASSPHRASE}\n".encode())
    with suppress(OSError):  # the other end is closed
        while more := os.read(ours, 1_000):
            shown += more
    os.close(ours)
    assert (backup.wait(WAIT_S), b"Wrote " in shown, PASSPHRASE.encode() in shown) == (0, True, False)
    assert backups.restore()[0] == 0


def test_a_backup_that_fails_leaves_the_one_before(backups: Backups) -> None:
    backups.backup()
    before = backups.file.read_bytes()
    backups.secret.write_text("\n")
    done = backups.old.neurogate("backup", str(backups.file), "--passphrase-file", str(backups.secret))
    assert (done.returncode, "The passphrase is empty" in done.stderr) == (1, True)
    assert backups.file.read_bytes() == before
    done = backups.old.neurogate("backup", str(backups.file))
    assert "no terminal to ask on" in done.stderr


async def test_who_goes_away_in_the_middle_leaves_no_copy(backups: Backups) -> None:
    from contextlib import aclosing

    from gateway.cli.gateway_link import connect
    from gateway.operations.backup import take_snapshot

    left = backups.old.data_dir / "snapshot"
    async with connect(backups.old.settings) as link, aclosing(link.stream(take_snapshot)) as steps:
        async for step in steps:
            if step.folder is not None:
                break
        assert left.exists()
    async with asyncio.timeout(10):
        while left.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
