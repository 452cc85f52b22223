"""What a kill or a power cut leaves in the write-ahead log, in an exchange, or of a first start."""

import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gateway.storage.repair.damage import begin_whole, beside
from gateway.storage.repair.wal_file import read_wal
from tests.storage.repair.damaged import PAGE, corrupt_files, fill, opened, reading, rescue, salvaged, survivors


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """Where a log with a write-ahead log is to be put, as a killed gateway leaves it."""
    return tmp_path / "killed" / "log.db"


async def leave_behind(path: Path, killed: Path) -> None:
    """Copy a log that is in use: what is on disk at that moment."""
    killed.parent.mkdir()
    async with opened(path) as log:
        for seq in range(1_001, 1_201):
            await log.append([reading(log, seq)])
        for suffix in ("", "-wal"):
            shutil.copy(beside(path, suffix), beside(killed, suffix))


async def test_garbage_in_the_write_ahead_log_hides_nothing_behind_it(tmp_path: Path, killed: Path) -> None:
    await fill(tmp_path / "log.db", 1_000)
    await leave_behind(tmp_path / "log.db", killed)
    wal = beside(killed, "-wal")
    assert not read_wal(wal, PAGE).hidden
    middle = 32 + (PAGE + 24) * (wal.stat().st_size // (PAGE + 24) // 2)
    with wal.open("r+b") as file:
        file.seek(middle)
        file.write(random.Random(1).randbytes(PAGE + 24))
    assert read_wal(wal, PAGE).hidden
    right, wrong, _ = await rescue(killed)
    print(f"{right} of 1,200")
    assert right >= 1_192
    assert wrong == 0


async def test_a_lost_write_ahead_log_header_hides_nothing(tmp_path: Path, killed: Path) -> None:
    await fill(tmp_path / "log.db", 1_000)
    await leave_behind(tmp_path / "log.db", killed)
    with beside(killed, "-wal").open("r+b") as file:
        file.write(random.Random(1).randbytes(32))
    right, wrong, _ = await rescue(killed)
    assert (right, wrong) == (1_200, 0)


async def test_a_torn_last_commit_is_no_damage(tmp_path: Path, killed: Path) -> None:
    await fill(tmp_path / "log.db", 1_000)
    await leave_behind(tmp_path / "log.db", killed)
    with beside(killed, "-wal").open("r+b") as file:
        file.truncate(beside(killed, "-wal").stat().st_size - 1_000)
    async with opened(killed) as log:
        assert not log.salvages
        assert (await log.buffer()).readings == 1_199


@pytest.mark.parametrize("unwritten", [0, 512, PAGE + 24 - 512])
@pytest.mark.parametrize("before", ["zeros", "an older generation"])
async def test_sectors_of_the_last_commit_that_a_power_cut_left_out_are_no_damage(
    tmp_path: Path, killed: Path, unwritten: int, before: str
) -> None:
    """Its last frame is whole, as sectors are written in any order; SQLite leaves the commit out, and so do we."""
    await fill(tmp_path / "log.db", 1_000)
    await leave_behind(tmp_path / "log.db", killed)
    wal = beside(killed, "-wal")
    frames, frame = wal.read_bytes()[32:], PAGE + 24
    commits = [at for at in range(0, len(frames), frame) if any(frames[at + 4 : at + 8])]
    first = commits[-2] + frame
    assert first < commits[-1], "a commit of several frames"
    older = (int.from_bytes(frames[8:12], "big") - 1).to_bytes(4, "big")
    left = (
        frames[first : first + 8] + older + frames[12:512]
        if before == "an older generation"
        else bytes([0xA5 if unwritten else 0] * 512)
    )
    with wal.open("r+b") as file:
        file.seek(32 + first + unwritten)
        file.write(left)
    assert not read_wal(wal, PAGE).hidden
    async with opened(killed) as log:
        assert not log.salvages
        assert (await log.buffer()).readings == 1_199


async def test_an_interrupted_exchange_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever rename is the last: nothing is lost, and no old write-ahead log meets a new database."""
    real, left = Path.replace, 0

    def replace(self: Path, target: Path) -> Any:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        return real(self, target)

    for renames in range(4):
        path = tmp_path / f"{renames}" / "log.db"
        path.parent.mkdir()
        source = tmp_path / f"source-{renames}" / "log.db"
        source.parent.mkdir()
        await fill(source, 1_000)
        await leave_behind_in(source, path)
        with path.open("r+b") as file:
            file.write(b"garbage!" * 8)
        left = renames
        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", replace)
            with pytest.raises(KeyboardInterrupt):
                async with opened(path):
                    pass
        async with opened(path) as log:
            await salvaged(log)
        assert survivors(path) == (1_200, 0)
        assert len(corrupt_files(path.parent)) == 1


async def leave_behind_in(source: Path, path: Path) -> None:
    async with opened(source) as log:
        await log.append([reading(log, seq) for seq in range(1_001, 1_201)])
        for suffix in ("", "-wal"):
            shutil.copy(beside(source, suffix), beside(path, suffix))


@pytest.mark.parametrize("deed", ["nothing", "half a log", "an empty write-ahead log"])
async def test_an_interrupted_first_start_is_no_damage(tmp_path: Path, deed: str) -> None:
    path = tmp_path / "log.db"
    if deed == "half a log":
        beside(path, ".building").write_bytes(b"")
        beside(path, ".building-wal").write_bytes(b"cut off")
    if deed == "an empty write-ahead log":
        beside(path, "-wal").write_bytes(b"")
    told: list[str] = []
    async with opened(path, told) as log:
        await log.append([reading(log, 1)])
    assert not told
    assert not corrupt_files(tmp_path)
    assert survivors(path) == (1, 0)


async def test_a_fresh_log_that_cannot_be_written_back_does_not_get_the_name(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    readers: list[sqlite3.Connection] = []

    def make(building: Path) -> None:
        db = sqlite3.connect(building, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE one (id)")
        reader = sqlite3.connect(building, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM one").fetchall()
        db.execute("INSERT INTO one VALUES (1)")
        db.close()
        readers.append(reader)

    with pytest.raises(sqlite3.OperationalError, match="in use"):
        begin_whole(path, make)
    readers[0].close()
    assert not path.exists()
