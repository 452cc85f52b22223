"""What a traced gateway did, in order: it read a PUBLISH, wrote it to the log, synced the log, wrote the PUBACK.

A call that others ran into is two lines of a trace, `<unfinished ...>` and `resumed`. So a call has a beginning and an
end, and only what ended before something else began counts as done before it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.broker.packets import PUBACK, remaining_length

_SYNCS = frozenset({"fsync", "fdatasync"})
_READS = frozenset({"read", "recvfrom", "recvmsg", "readv"})
_WRITES = frozenset({"write", "sendto", "sendmsg", "writev"})
_LOG_WRITES = frozenset({"pwrite64"})
_LOG = "/log.db-wal"
_SOCKET = "TCP:["
_STRING_BYTES = 20_000

_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>(.*)|(\w+)\((.*?)(<unfinished \.\.\.>)?)$")
_FILE = re.compile(r"\d+<((?:\\x[0-9a-f]{2})+|TCP:\[[^]]*\])")  # -xx makes paths hexadecimal, too
_HEX = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_RESULT = re.compile(r"\) += (-?\d+)")


def tracer(trace: Path) -> tuple[str, ...]:
    """Return the command that starts a traced program: all threads, strings in hexadecimal."""
    calls = ",".join(sorted(_SYNCS | _READS | _WRITES | _LOG_WRITES))
    return ("strace", "-f", "-yy", "-xx", "-s", str(_STRING_BYTES), "-e", f"trace={calls}", "-o", str(trace))


@dataclass(slots=True, frozen=True)
class Call:
    """One system call that succeeded; `began` and `ended` are lines of the trace."""

    name: str
    file: str
    """A path, or `TCP:[…]`."""
    data: bytes
    began: int
    ended: int


def calls(trace: Path) -> Iterator[Call]:
    """Yield the calls of a trace on sockets and on the write-ahead log, in the order in which they ended."""
    begun: dict[str, tuple[str, str, int]] = {}
    with trace.open() as lines:
        for number, line in enumerate(lines):
            match = _LINE.match(line)
            if match is None:  # a signal, or the end of a thread
                continue
            thread, resumed, rest, name, arguments, unfinished = match.groups()
            began = number
            if unfinished:
                begun[thread] = (name, arguments, number)
                continue
            if resumed:
                name, arguments, began = begun.pop(thread)
                arguments += rest
            call = _call(name, arguments, began, number)
            if call is not None:
                yield call


def _call(name: str, arguments: str, began: int, ended: int) -> Call | None:
    result = _RESULT.search(arguments)
    file = _FILE.match(arguments)
    if result is None or file is None or int(result[1]) < 0:
        return None
    path = file[1] if file[1].startswith(_SOCKET) else _bytes(file[1]).decode()
    if not path.startswith(_SOCKET) and not path.endswith(_LOG):
        return None
    strings = _HEX.findall(arguments)
    assert not any(shortened for _, shortened in strings), "the trace is not whole"
    data = b"".join(_bytes(text) for text, _ in strings)
    return Call(name, path, data[: int(result[1])], began, ended)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass(slots=True)
class _Promise:
    """A PUBLISH that was read, and how far it has come."""

    packet_id: bytes
    payload: bytes
    read: int
    written: int | None = None
    synced: int | None = None


@dataclass(slots=True, frozen=True)
class Findings:
    """What a trace proves: how many PUBACKs it has, and those that went out too early."""

    acknowledged: int
    too_early: Sequence[str]


def check(trace: Iterable[Call], mqtt_port: int) -> Findings:
    """Look at every PUBACK: was its PUBLISH in the write-ahead log, and that synced, before it began to be sent?"""
    sockets = re.compile(rf"{re.escape(_SOCKET)}127\.0\.0\.1:{mqtt_port}->")
    incoming: dict[str, bytes] = {}
    open_promises: dict[str, list[_Promise]] = {}
    acknowledged, too_early = 0, []
    for call in trace:
        promises = [promise for several in open_promises.values() for promise in several]
        if call.file.endswith(_LOG):
            _note(call, promises)
        elif not sockets.match(call.file):
            continue
        elif call.name in _READS:
            data = incoming.get(call.file, b"") + call.data
            came, incoming[call.file] = _publishes(data, call.ended)
            open_promises.setdefault(call.file, []).extend(came)
        elif call.name in _WRITES:
            for packet_id in _pubacks(call.data):
                promise = open_promises[call.file].pop(0)
                assert promise.packet_id == packet_id, "a PUBACK out of turn"
                acknowledged += 1
                if promise.synced is None or promise.synced >= call.began:
                    too_early.append(f"line {call.began + 1}: {promise}")
    return Findings(acknowledged, too_early)


def _note(call: Call, promises: Iterable[_Promise]) -> None:
    """Note what a write to the log, or a sync of it, means for what was read before it began."""
    for promise in promises:
        if call.name in _LOG_WRITES:
            if promise.written is None and promise.read < call.began and promise.payload in call.data:
                promise.written = call.ended
        elif promise.synced is None and promise.written is not None and promise.written < call.began:
            promise.synced = call.ended


def _publishes(data: bytes, read: int) -> tuple[list[_Promise], bytes]:
    """Take the whole packets of what a client sent; returns its QoS 1 PUBLISHes and the rest."""
    promises: list[_Promise] = []
    while len(data) >= 2:
        length, start = remaining_length(data, 1)
        if length < 0 or start + length > len(data):
            break
        body = data[start : start + length]
        if data[0] >> 4 == 3:
            after_topic = 2 + int.from_bytes(body[:2])
            promises.append(_Promise(body[after_topic : after_topic + 2], body[after_topic + 2 :], read))
        data = data[start + length :]
    return promises, data


def _pubacks(data: bytes) -> list[bytes]:
    """Return the packet ids of the PUBACKs in what a gateway sent; it sends whole packets of four bytes here."""
    packets = [data[at : at + 4] for at in range(0, len(data), 4)]
    return [packet[2:] for packet in packets if packet[:2] == PUBACK]
