"""The board asks an NTP server over the network; who answers something else is not believed."""

import asyncio
import struct
import time
from typing import Any

import pytest

from tests.firmware.board_process import told

_NTP_EPOCH_S = 2_208_988_800


class NtpServer(asyncio.DatagramProtocol):
    """Answers as RFC 5905 has it, or not at all."""

    def __init__(self, how: str) -> None:
        self._how = how

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        assert (len(data), data[0]) == (48, 0x23)
        now = time.time() + _NTP_EPOCH_S
        cookie = bytes(8) if self._how == "for another" else data[40:48]
        first = 0xE4 if self._how == "not set" else 0x24
        stamp = struct.pack(">II", int(now), int(now % 1 * 2**32))
        if self._how != "silent":
            self._transport.sendto(bytes([first, 2]) + bytes(22) + cookie + stamp + stamp, address)


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("right", ""),
        ("not set", "not synchronised itself"),
        ("for another", "not an answer to our question"),
        ("silent", "does not answer NTP"),
    ],
)
async def test_it_learns_the_time_to_the_millisecond_or_says_why_not(how: str, problem: str) -> None:
    server, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: NtpServer(how), ("127.0.0.1", 0))
    before_ms = time.time_ns() // 1_000_000
    board = await told("ask_ntp", {"port": server.get_extra_info("sockname")[1]})
    after_ms = time.time_ns() // 1_000_000
    server.close()
    if problem:
        assert problem in board.of("problem")[0]
    else:
        assert before_ms - 2 <= board.of("time")[0] <= after_ms
