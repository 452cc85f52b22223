"""Parts that fail, stand still or lose an exception, and the watchdog: also run by MicroPython."""

import asyncio
import os

import simulated_flash
from app.clock import Clock
from app.crash_log import CrashLog
from app.own_commands import crash_text
from app.supervisor import Part, Supervisor
from time_by_hand import Ticks


class Watchdog:
    fed = 0

    def feed(self):
        self.fed += 1


class Failing(Part):
    name = "failing"
    runs = 0

    async def run(self):
        self.runs += 1
        await asyncio.sleep_ms(0)
        raise ValueError("broken")


class Still(Part):
    name = "still"

    async def run(self):
        while True:
            await asyncio.sleep_ms(1)


class Moving(Part):
    name = "moving"

    async def run(self):
        while True:
            self.beat()
            await asyncio.sleep_ms(0)


class Board:
    def __init__(self, *kinds):
        self.folder = simulated_flash.folder("supervisor")
        self.ticks = Ticks()
        self.clock = Clock(self.ticks, lambda unix_s: None)
        self.parts = [kind(self.clock) for kind in kinds]
        self.crash_log = CrashLog(self.folder + "/crash.log", self.clock, "boot")
        self.watchdog = Watchdog()
        self.restarts = []
        self.supervisor = Supervisor(self.clock, self.parts, self.watchdog, self.crash_log, self.restarts.append)

    async def pass_by(self, seconds):
        """Let the supervisor look once in each second."""
        for _ in range(seconds):
            fed = self.watchdog.fed
            await self.supervisor.look()
            for _ in range(5):
                await asyncio.sleep_ms(2 if fed < 0 else 0)
            self.ticks.advance(1_000)

    def remove(self):
        for run in self.supervisor._runs:
            if run.task is not None:
                run.task.cancel()
        simulated_flash.remove(self.folder)


async def test_what_fails_is_started_again_later_each_time_and_written_down():
    board = Board(Failing, Moving)
    await board.pass_by(3)
    assert board.parts[0].runs == 2
    await board.pass_by(12)
    assert board.parts[0].runs == 4  # 1, 2, 4 and 8 seconds after it was noticed, at the next look
    assert board.crash_log.last == "failing: ValueError: broken"
    assert "Traceback" in crash_text(board.crash_log.path, 2_048)
    assert board.restarts == []
    board.remove()


async def test_what_fails_too_often_costs_a_restart():
    board = Board(Failing)
    await board.pass_by(300)
    assert board.restarts[0] == "failing fails again and again"
    assert board.parts[0].runs == 9 or board.parts[0].runs > 9
    board.remove()


async def test_the_watchdog_is_fed_only_while_every_part_moves():
    board = Board(Moving, Still)
    await board.pass_by(30)
    assert (board.watchdog.fed, board.restarts) == (30, [])
    await board.pass_by(5)
    assert board.watchdog.fed < 33
    assert board.restarts[0] == "still stands still"
    assert "still stands still" in crash_text(board.crash_log.path, 2_048)
    board.remove()


async def test_parts_that_move_never_cost_a_restart():
    board = Board(Moving, Moving)
    await board.pass_by(200)
    assert (board.watchdog.fed, board.restarts, board.crash_log.count) == (200, [], 0)
    board.remove()


def test_the_crash_log_keeps_the_newest_in_four_kb():
    board = Board()
    for number in range(300):
        try:
            raise ValueError("number %d €" % number)
        except ValueError as error:
            board.crash_log.write("test", error)
    size = sum([os.stat(board.folder + "/" + name)[6] for name in os.listdir(board.folder)])
    assert 2_000 < size <= 4_096 + 300
    assert len(os.listdir(board.folder)) == 2
    text = crash_text(board.crash_log.path, 2_048)
    assert "number 299" in text
    assert "number 100" not in text
    assert len(text) <= 2_048
    board.remove()
