"""Readings in memory and on the flash: nothing overtakes, nothing is lost that need not be. Also run by MicroPython."""

import os

import simulated_flash
from app.clock import Clock
from app.outbox import Outbox
from app.spill import Spill
from simulated_flash import CutAfter, PowerCut
from time_by_hand import Ticks

PLENTY = 1 << 30


class Board:
    """Starts of one board on one flash."""

    def __init__(self, name, most_files=64):
        self.folder = simulated_flash.folder(name)
        self.free = PLENTY
        self.most_files = most_files
        self.starts = 0
        self.start()

    def start(self):
        self.starts += 1
        self.ticks = Ticks()
        self.clock = Clock(self.ticks, lambda unix_s: None)
        self.spill = Spill(self.folder + "/spill", lambda: self.free, self.most_files)
        self.outbox = Outbox(self.clock, "boot%04d" % self.starts, self.spill, ram_bytes=8_000, window=4)

    def add(self, count, size=400):
        for _ in range(count):
            self.ticks.advance(1_000)
            self.outbox.add(b"x" * size)

    async def send(self, most=10_000):
        """Take and acknowledge, in the order in which the gateway does; returns (boot, seq)."""
        sent = []
        while len(sent) < most:
            record = await self.outbox.take(1)
            if record is None:
                return sent
            sent.append((record.boot_id, record.seq))
            self.outbox.acknowledge(record)
        return sent

    async def take(self, count):
        taken = []
        for _ in range(count):
            taken.append(await self.outbox.take(1))
        return taken

    def files(self):
        return sorted(os.listdir(self.folder + "/spill"))

    def remove(self):
        simulated_flash.remove(self.folder)


def numbers(count, boot="boot0001", first=1):
    return [(boot, number) for number in range(first, first + count)]


async def test_what_fits_in_memory_never_touches_the_flash():
    board = Board("few")
    board.add(20)
    assert board.files() == []
    assert await board.send() == numbers(20)
    assert board.outbox.waiting == 0
    board.remove()


async def test_what_does_not_fit_goes_to_the_flash_and_keeps_its_order():
    board = Board("many")
    board.add(100)
    assert len(board.files()) > 5
    assert await board.send(30) == numbers(30)
    board.add(60)
    assert await board.send() == numbers(130, first=31)
    assert board.files() == []
    assert board.outbox.dropped == 0
    board.remove()


async def test_no_more_than_the_window_is_on_its_way():
    board = Board("window")
    board.add(60)
    taken = await board.take(4)
    assert [record.seq for record in taken] == [1, 2, 3, 4]
    assert await board.take(2) == [None, None]
    board.outbox.acknowledge(taken[0])
    assert (await board.outbox.take(1)).seq == 5
    board.remove()


async def test_a_file_stays_until_all_of_it_is_acknowledged():
    board = Board("stays")
    board.add(40)
    files = board.files()
    for _ in range(9):
        board.outbox.acknowledge(await board.outbox.take(1))
    last = await board.outbox.take(1)
    assert await board.outbox.take(1) is None
    assert board.files() == files
    board.outbox.acknowledge(last)
    assert (await board.outbox.take(1)).seq == 11
    assert board.files() == files[1:]
    board.remove()


async def test_after_a_power_cut_what_was_on_the_flash_is_sent_first():
    board = Board("cut")
    board.add(50)
    on_flash = 10 * len(board.files())
    assert await board.send(5) == numbers(5)
    board.start()
    board.add(3)
    assert await board.send() == numbers(on_flash) + numbers(3, "boot0002")
    board.remove()


async def test_a_power_cut_at_any_byte_of_a_file_costs_nothing_of_what_was_there_before():
    whole = 12 + 10 * (22 + 4 + 400)
    for size in [0, 1, 11, 12, 13, 30, 38, 39, 437, 438, 439] + list(range(700, whole, 333)) + [whole - 1, whole]:
        board = Board("byte")
        board.add(30)
        before = 10 * len(board.files())
        try:
            with CutAfter(size):
                board.add(60 if size == whole else 10)
        except PowerCut:
            pass
        board.start()
        sent = await board.send()
        assert sent[:before] == numbers(before), size
        kept = max(0, (size - 12) // 426)
        assert sent[before:] == numbers(kept, first=before + 1), size
        assert board.files() == []
        board.remove()


async def test_a_flash_that_takes_no_more_costs_the_oldest_and_they_are_counted():
    board = Board("full")
    board.add(20)
    board.free = 1_000
    board.add(30)
    assert board.outbox.dropped == 30
    assert await board.send() == numbers(20, first=31)
    board.free = PLENTY
    board.add(100)
    assert await board.send() == numbers(100, first=51)
    assert board.outbox.dropped == 30
    board.remove()


async def test_of_more_files_than_may_be_the_oldest_goes_and_is_counted():
    board = Board("cap", most_files=3)
    board.add(100)
    assert len(board.files()) == 3
    dropped = board.outbox.dropped
    assert dropped == 50
    assert await board.send() == numbers(50, first=51)
    board.remove()


async def test_of_the_file_that_is_being_sent_nothing_is_dropped():
    board = Board("loaded", most_files=3)
    board.add(41)
    first = await board.outbox.take(1)
    board.add(60)
    board.outbox.acknowledge(first)
    sent = [first.seq] + [seq for _, seq in await board.send()]
    assert sent[:10] == list(range(1, 11))
    assert sent == sorted(sent)
    assert len(sent) + board.outbox.dropped == 101
    board.remove()


async def test_a_restart_that_is_wanted_loses_nothing_and_keeps_the_order():
    board = Board("flush")
    board.add(15)
    on_their_way = await board.take(4)
    board.add(20)
    board.outbox.acknowledge(on_their_way[0])
    board.outbox.flush()
    board.start()
    board.add(1)
    assert await board.send() == numbers(34, first=2) + numbers(1, "boot0002")
    board.remove()


async def test_what_is_too_large_is_no_reading_and_is_counted():
    board = Board("large")
    board.add(1, size=3_000)
    board.add(1)
    assert board.outbox.dropped == 1
    assert await board.send() == numbers(1, first=2)
    board.remove()


async def test_what_is_no_file_of_ours_is_not_read_and_a_damaged_one_as_far_as_it_is_whole():
    board = Board("damaged")
    board.add(40)
    first = board.folder + "/spill/" + board.files()[0]
    with open(first, "rb") as file:
        data = bytearray(file.read())
    data[12 + 3 * 426 + 50] ^= 1  # in the fourth reading
    with open(first, "wb") as file:
        file.write(data)
    for name, content in (("00000001", b"something else, no reading"), ("notes.txt", b"x"), ("00000002", b"")):
        with open(board.folder + "/spill/" + name, "wb") as file:
            file.write(content)
    board.start()
    assert [seq for _, seq in await board.send()][:5] == [1, 2, 3, 11, 12]
    assert board.files() == ["notes.txt"]
    board.remove()


async def test_the_time_is_written_down_once_it_is_known():
    board = Board("time")
    board.add(10)
    board.clock.set(1_800_000_000_000, "ntp")
    uptime_ms = board.clock.uptime_ms()
    board.add(30)
    board.start()
    record = await board.outbox.take(1)
    assert record.unix_ms == 1_800_000_000_000 - uptime_ms + record.uptime_ms
    board.remove()
