"""P1: what has been acknowledged is in the log, once, whenever the process that stores it is killed."""

import asyncio
import os
import random
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.extent import much
from tests.promises.boards import Board, acknowledged, running
from tests.promises.commit_flag import CommitFlag, Phase
from tests.promises.gateway_process import GatewayProcess
from tests.promises.readings import Stream, integrity, missing, newest_row, repeated, stored
from tests.promises.site import ROOT, Site

_WRITER_KILLS = much(60, 200)
_GATEWAY_KILLS = much(8, 20)
_LONGEST_LOAD_S = 0.06
_LONGEST_AIM_S = 0.5
_PATIENCE_S = 20.0

Say = Callable[[str], None]


class Writers:
    """The parent's side of `tests.promises.writer`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._orders, self._lines = process.stdin, process.stdout.fileno()
        self._rest = b""
        self._readable = selectors.DefaultSelector()
        self._readable.register(self._lines, selectors.EVENT_READ)
        self._pid = 0
        self.acknowledged: dict[Stream, set[int]] = defaultdict(set)

    def kill_one_under_load(self, boot_id: str, load_s: float, aim: Callable[[], object]) -> None:
        """Start a writer, and kill it `load_s` after its first acknowledgement; returns when it has been reaped."""
        self._pid = 0
        self._orders.write(f"{boot_id}\n".encode())
        self._orders.flush()
        deadline = time.monotonic() + _PATIENCE_S
        while not self.acknowledged_in(boot_id) or not self._pid:
            assert self._listen(deadline), "the writer acknowledges nothing"
        at = time.monotonic() + load_s
        while self._listen(at):
            pass
        aim()
        os.kill(self._pid, signal.SIGKILL)
        while self._pid:
            assert self._listen(deadline), "the writer cannot be killed"

    def kill(self) -> None:
        """Kill the writer that a failed test may have left."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)

    def acknowledged_in(self, boot_id: str) -> dict[Stream, set[int]]:
        """Return what one writer has acknowledged."""
        return {stream: seqs for stream, seqs in self.acknowledged.items() if stream[1] == boot_id}

    def _listen(self, deadline: float) -> bool:
        """Take in what the writers say; False when they say nothing more until the deadline."""
        left = deadline - time.monotonic()
        if left <= 0 or not self._readable.select(left):
            return False
        said = os.read(self._lines, 65_536)
        assert said, "the writers have ended"
        *lines, self._rest = (self._rest + said).split(b"\n")
        for line in lines:
            self._understand(line.decode().split())
        return True

    def _understand(self, words: list[str]) -> None:
        match words:
            case ["acked", device, boot_id, first, last]:
                self.acknowledged[device, boot_id].update(range(int(first), int(last) + 1))
            case ["forked", pid]:
                self._pid = int(pid)
            case ["reaped", status]:
                assert os.WTERMSIG(int(status)) == signal.SIGKILL, "the writer ended by itself"
                self._pid = 0
            case _:
                raise AssertionError(words)


@contextmanager
def writers(log_db: Path, flag: Path) -> Iterator[Writers]:
    command = [sys.executable, "-m", "tests.promises.writer", str(log_db), str(flag)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        crowd = Writers(process)
        try:
            yield crowd
        finally:
            process.kill()
            crowd.kill()


def aim(number: int, flag: CommitFlag) -> Callable[[], object]:
    """Return what to do right before a kill: every second one is at random, the others wait for an open commit.

    So that enough of them hit one also where the disk is fast. Whether it did is read after the death.
    """

    def wait_for_a_commit() -> None:
        deadline = time.monotonic() + _LONGEST_AIM_S
        while flag.phase is Phase.OUTSIDE and time.monotonic() < deadline:
            pass

    return wait_for_a_commit if number % 2 else lambda: None


@pytest.mark.timeout(240)
def test_p1_no_acknowledged_reading_is_lost_when_a_writer_is_killed(tmp_path: Path, say: Say) -> None:
    log_db, flag = tmp_path / "log.db", CommitFlag(tmp_path / "flag")
    phases: Counter[Phase] = Counter()
    with writers(log_db, tmp_path / "flag") as crowd:
        row = 0
        for number in range(_WRITER_KILLS):
            boot_id = f"boot-{number:03}"
            crowd.kill_one_under_load(boot_id, random.uniform(0, _LONGEST_LOAD_S), aim(number, flag))
            phases[flag.phase] += 1
            new = stored(log_db, after=row)
            assert not missing(crowd.acknowledged_in(boot_id), new)
            row = newest_row(log_db)
        in_log = stored(log_db)
        lost = missing(crowd.acknowledged, in_log)
        acknowledged = sum(map(len, crowd.acknowledged.values()))
    during = phases[Phase.WRITING] + phases[Phase.COMMITTING]
    say(
        f"P1: {_WRITER_KILLS} kills of a writer, {during} during an open commit "
        f"({phases[Phase.COMMITTING]} of them between COMMIT and its return), "
        f"{acknowledged:,} acknowledged readings, {len(lost):,} missing"
    )
    assert not lost
    assert not repeated(in_log)
    assert integrity(log_db) == "ok"
    assert during >= _WRITER_KILLS // 4
    log_db.unlink()  # pytest would keep these hundreds of megabytes


@pytest.mark.timeout(240)
async def test_p1_no_acknowledged_reading_is_lost_when_the_gateway_is_killed(tmp_path: Path, say: Say) -> None:
    site, flag = Site(tmp_path), CommitFlag(tmp_path / "flag")
    site.write()
    boards = [Board(login, site.mqtt_port) for login in await site.add_devices(20)]
    during = 0
    program = ("-m", "tests.promises.gateway_with_commit_flag", str(tmp_path / "flag"))
    async with GatewayProcess(site, program=program) as gateway, running(boards):
        for number in range(_GATEWAY_KILLS):
            await more_acknowledged(boards)
            await asyncio.sleep(random.uniform(0, _LONGEST_LOAD_S))
            aim(number, flag)()
            await gateway.kill()
            during += flag.phase is not Phase.OUTSIDE
            await gateway.start()
        await more_acknowledged(boards)
        await gateway.kill()
    in_log = stored(site.data_dir.log_db)
    lost = missing(acknowledged(boards), in_log)
    say(
        f"P1: {_GATEWAY_KILLS} kills of a gateway, {during} during an open commit, "
        f"{sum(len(board.acked) for board in boards):,} acknowledged readings, "
        f"{sum(board.resent for board in boards):,} sent again, {len(lost):,} missing"
    )
    assert not lost
    assert not repeated(in_log)
    assert integrity(site.data_dir.log_db) == "ok"
    assert sum(board.resent for board in boards) > 0
    assert during >= _GATEWAY_KILLS // 4


async def more_acknowledged(boards: list[Board]) -> None:
    """Return when every board has been acknowledged some more: all are connected again."""
    before = [len(board.acked) for board in boards]
    async with asyncio.timeout(_PATIENCE_S):
        while any(len(board.acked) < count + 50 for board, count in zip(boards, before, strict=True)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
