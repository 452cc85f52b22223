"""Commands: once, in time, one after the other, answered. Also run by MicroPython."""

import asyncio
import json

from app.clock import Clock
from app.commands import Commands
from time_by_hand import LoopTicks

NOW_S = 1_800_000_000


class Client:
    def __init__(self):
        self.said = []

    def submit(self, message):
        self.said.append((message.topic, json.loads(message.payload)))


class Other:
    methods = ("another",)


class Board:
    methods = ("note", "fail", "slow")

    def __init__(self, knows_time=True):
        self.clock = Clock(LoopTicks(), lambda unix_s: None)
        if knows_time:
            self.clock.set(NOW_S * 1000, "ntp")
        self.client = Client()
        self.ran = []
        self.commands = Commands(self.clock, self.client, "o/commands/", [Other(), self])

    async def carry_out(self, method, params):
        return await getattr(self, method)(params)

    async def note(self, params):
        self.ran.append(params)
        return {"noted": len(self.ran)}

    async def fail(self, params):
        raise OSError("no radar")

    async def slow(self, params):
        await asyncio.sleep_ms(100)

    async def hear(self, *commands):
        """Take in commands (id, object or bytes); returns what is answered until all are done."""
        running = asyncio.create_task(self.commands.run())
        before = len(self.client.said)
        for command_id, command in commands:
            self.commands.hear(command_id, command if not isinstance(command, dict) else json.dumps(command).encode())
        for _ in range(2_000):
            ended = [one for one in self.client.said[before:] if one[1]["state"] != "executing"]
            if len(ended) == len(commands):
                break
            await asyncio.sleep_ms(5)
        running.cancel()
        return self.client.said[before:]


async def test_a_command_is_answered_with_executing_and_its_result():
    said = await Board().hear(("7", {"method": "note", "params": {"a": 1}, "deadline": NOW_S + 5}))
    assert said == [
        ("o/commands/7/ack", {"state": "executing"}),
        ("o/commands/7/ack", {"state": "successful", "result": {"noted": 1}}),
    ]


async def test_what_comes_twice_runs_once_and_is_answered_again():
    board = Board()
    first = await board.hear(("7", {"method": "note"}))
    again = await board.hear(("7", {"method": "note"}))
    assert board.ran == [{}]
    assert again == first[-1:]


async def test_what_comes_too_late_is_not_carried_out_nor_what_may_be_too_late():
    board = Board()
    said = await board.hear(("1", {"method": "note", "deadline": NOW_S - 1}))
    assert said[-1][1] == {"state": "failed", "result": "too late"}
    said = await board.hear(("2", {"method": "slow"}), ("3", {"method": "note", "deadline": NOW_S + 5.5}))
    assert said[-1][1]["state"] == "successful"
    board = Board(knows_time=False)
    said = await board.hear(("1", {"method": "note", "deadline": NOW_S + 5}), ("2", {"method": "note"}))
    assert "does not know the time" in said[2][1]["result"]
    assert said[3][1]["state"] == "successful"


async def test_what_is_wrong_is_said():
    board = Board()
    for command, words in (
        (b"{", "no JSON"),
        (b"[]", "an object"),
        ({"method": "note", "params": 5}, "an object"),
        ({"method": "x"}, "no such method; there are another, fail, note, slow"),
        ({"method": ["note"]}, "no such method"),
        ({"method": "note", "deadline": "soon"}, "deadline must be unix seconds"),
        ({"method": "fail"}, "OSError: no radar"),
        (None, "too long"),
    ):
        said = await board.hear((words, command))
        assert said[-1][1]["state"] == "failed"
        assert words in said[-1][1]["result"], said
    assert board.ran == []


async def test_too_many_at_once_are_refused_and_a_deleted_one_is_none():
    board = Board()
    board.commands.hear("0", b"")
    said = await board.hear(*[(str(number), {"method": "note"}) for number in range(1, 7)])
    states = [one[1]["state"] for one in said]
    assert states.count("successful") == 4
    assert states.count("failed") == 2
    assert len(board.ran) == 4


async def test_only_the_last_ids_are_remembered():
    board = Board()
    for number in range(40):
        await board.hear((str(number), {"method": "note"}))
    assert len(board.commands._answers) == 8
