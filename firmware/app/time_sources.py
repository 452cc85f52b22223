"""Where a board learns the time: from an NTP server, or else from its gateway's /health.

Both come before TLS, which needs a time to judge a certificate's dates, and both are unauthenticated: who can forge
them can make an expired certificate look valid, but not one of another CA.

Source of the packet: RFC 5905, section 7.3.
"""

import asyncio
import json
import os
import socket

from micropython import const

from app.within import within

_NTP_EPOCH_S = const(2_208_988_800)
_EARLIEST_S = const(1_767_225_600)
"""2026-01-01: nothing that runs this is older."""
_NTP_MS = const(2_000)
_HTTP_MS = const(5_000)
_STEP_MS = const(10)
_MOST_BYTES = const(512)


async def ask(clock, ntp_host, gateway_address, http_port):
    """Set the clock, if somebody answers."""
    try:
        clock.set(await ask_ntp(ntp_host), "ntp")
    except (OSError, ValueError) as error:
        print("clock: %s:" % ntp_host, error)
    else:
        return
    if clock.source == "ntp":  # which is better, however long ago
        return
    address = gateway_address()
    try:
        if address is None:
            return
        unix_ms, is_right = await ask_gateway(address, http_port)
        if is_right:
            clock.set(unix_ms, "gateway")
        elif not clock.is_set:
            print("clock: the gateway's own clock is not set by NTP")
            clock.suppose(unix_ms)
    except (OSError, ValueError) as error:
        print("clock:", error)


def ntp_question(cookie):
    """Return the packet that asks; `cookie` (8 bytes) comes back in the answer."""
    return b"\x23" + bytes(39) + cookie


def ntp_answer_ms(data, cookie):
    """Return the unix milliseconds in an answer. Raises ValueError when it is none, or the server knows no time."""
    if len(data) < 48 or data[0] & 7 != 4 or bytes(data[24:32]) != cookie:
        raise ValueError("not an answer to our question")
    if data[0] >> 6 == 3 or not 0 < data[1] < 16:
        raise ValueError("the NTP server is not synchronised itself")
    seconds = int.from_bytes(data[40:44], "big")
    if seconds < 1 << 31:  # the era that begins in 2036
        seconds += 1 << 32
    return _credible((seconds - _NTP_EPOCH_S) * 1000 + (int.from_bytes(data[44:48], "big") * 1000 >> 32))


def gateway_answer_ms(body):
    """Return the unix milliseconds in a gateway's answer, and whether its own clock is right. Raises ValueError."""
    told = json.loads(body)
    unix_ms = told.get("time_ms") if isinstance(told, dict) else None
    if not isinstance(unix_ms, int):
        raise ValueError("the gateway's answer has no time")
    return _credible(unix_ms), told.get("time_is_right") is True


def _credible(unix_ms):
    if unix_ms < _EARLIEST_S * 1000:
        raise ValueError("a time that is long over")
    return unix_ms


async def ask_ntp(address, port=123):
    """Return the time that a server tells. Raises OSError, ValueError."""
    cookie = os.urandom(8)
    found = socket.getaddrinfo(address, port)[0][-1]
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        asking.setblocking(False)
        asking.sendto(ntp_question(cookie), found)
        for _ in range(_NTP_MS // _STEP_MS):
            await asyncio.sleep_ms(_STEP_MS)
            try:
                data = asking.recv(64)
            except OSError:  # nothing has come yet
                continue
            if data:
                return ntp_answer_ms(data, cookie)
    finally:
        asking.close()
    raise OSError("%s does not answer NTP" % address)


async def ask_gateway(address, port):
    """Return the time that the gateway tells, and whether it is sure of it. Raises OSError, ValueError."""
    try:
        return gateway_answer_ms(await within(_HTTP_MS, _ask_gateway(address, port)))
    except asyncio.TimeoutError:
        raise OSError("the gateway does not tell the time on port %d" % port) from None


async def _ask_gateway(address, port):
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(b"GET /health HTTP/1.0\r\nHost: gateway\r\nConnection: close\r\n\r\n")
        await writer.drain()
        for _ in range(40):
            line = await reader.readline()
            if not line.strip():
                break
        return await reader.read(_MOST_BYTES)
    finally:
        writer.close()
        await writer.wait_closed()
