"""One message to many: readings of 100 boards to ten who hear all of them, beside mosquitto and stock amqtt.

Same boards, same listeners, same payload; each turn has a fresh broker, and the turns of all three alternate, so that
whatever else the machine does hits each of them. Only neurogate validates and stores what it takes in, and acknowledges
it when it is on disk; the others promise nothing. What has not come ten seconds after the last publish is missing. The
load generator must have time to spare, or it is itself that is measured: it says how busy it was.
"""

import asyncio
import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.bench import process, site
from tests.bench.brokers import AMQTT, BROKERS, MOSQUITTO, NEUROGATE, Broker, broker, versions
from tests.bench.listeners import Turn
from tests.bench.measurements import Row

_LISTENERS = 10
_BOARDS = 100


@dataclass(slots=True, frozen=True)
class _Kind:
    """A kind of turn."""

    name: str
    qos: int
    """Of the listeners."""
    rate: float
    """Readings/s; 0: as fast as they are acknowledged."""


_KINDS = (
    _Kind("5,000 readings/s, QoS 0", 0, 5_000),
    _Kind("5,000 readings/s, QoS 1", 1, 5_000),
    _Kind("as fast as acknowledged, QoS 0", 0, 0),
)


@dataclass(slots=True, frozen=True)
class _Seen:
    turn: Turn
    cpu_ms: float
    """Processor time of the broker for 1,000 deliveries."""


async def fanout(folder: Path, *, seconds: float, rounds: int) -> list[Row]:
    """Compare the brokers. Raises NotInstalled."""
    table: list[Row] = [("compared to", versions())]
    boards_file = await site.prepare(folder, devices=_BOARDS, readings=0)
    hub_file = folder / "hub.json"
    hub_file.write_text(json.dumps(await site.add_hub(folder)))
    seen: defaultdict[tuple[_Kind, str], list[_Seen]] = defaultdict(list)
    for _ in range(rounds):
        for kind in _KINDS:
            for name in BROKERS:
                async with broker(name, folder) as running:
                    seen[kind, name].append(await _turn(running, kind, boards_file, hub_file, seconds))
    for kind in _KINDS:
        table += _compare(kind, {name: seen[kind, name] for name in BROKERS})
    return table


async def _turn(running: Broker, kind: _Kind, boards_file: Path, hub_file: Path, seconds: float) -> _Seen:
    cpu = process.cpu_seconds(running.pid)
    load = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.listeners", f"--port={running.port}", f"--seconds={seconds}"),
        *(f"--boards-file={boards_file}", f"--hub-file={hub_file}", f"--listeners={_LISTENERS}"),
        *(f"--qos={kind.qos}", f"--rate={kind.rate}"),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await load.communicate()
    turn = Turn(**json.loads(output))
    return _Seen(turn, (process.cpu_seconds(running.pid) - cpu) / turn.deliveries * 1e6)


def _compare(kind: _Kind, seen: dict[str, list[_Seen]]) -> list[Row]:
    """Name the medians of the rounds."""
    table: list[Row] = [(f"{kind.name}, to {_LISTENERS} listeners", f"{_BOARDS} boards")]
    for name in BROKERS:
        turns = [one.turn for one in seen[name]]
        offered, acked = median(one.offered for one in turns), median(one.acked for one in turns)
        delivered = median(one.delivered for one in turns)
        missing, of = sum(one.missing for one in turns), sum(one.published for one in turns) * _LISTENERS
        p50, p99 = median(one.p50_ms for one in turns), median(one.p99_ms for one in turns)
        cpu, busy = median(one.cpu_ms for one in seen[name]), median(one.busy for one in turns)
        disordered = sum(one.out_of_order for one in turns)
        table += [
            (f"  {name}: acknowledged, delivered", f"{acked:,.0f} of {offered:,.0f}/s, {delivered:,.0f}/s"),
            ("    missing, out of order", f"{missing:,} of {of:,}, {disordered:,}"),
            ("    publish to delivery, p50 / p99", f"{p50:.1f} / {p99:.1f} ms"),
            ("    CPU for 1,000 deliveries; load", f"{cpu:.1f} ms; {busy:.0%} of a core"),
        ]
    return table + [_ratio(seen, other) for other in (MOSQUITTO, AMQTT)]


def _ratio(seen: dict[str, list[_Seen]], other: str) -> Row:
    """How neurogate does beside another, round by round: they share the noise of the machine."""
    pairs = list(zip(seen[NEUROGATE], seen[other], strict=True))
    delivered = [mine.turn.delivered / theirs.turn.delivered for mine, theirs in pairs]
    p50 = [mine.turn.p50_ms / theirs.turn.p50_ms for mine, theirs in pairs]
    cpu = [mine.cpu_ms / theirs.cpu_ms for mine, theirs in pairs]
    told = f"x {median(delivered):.2f}, x {median(p50):.3g}, x {median(cpu):.2f}"
    return (f"  to {other}: delivered, p50, CPU", told)
