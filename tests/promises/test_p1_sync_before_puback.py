"""P1 against a power cut: the system calls show that the log is synced before the acknowledgement leaves."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from tests.promises.boards import Board, running
from tests.promises.gateway_process import GatewayProcess
from tests.promises.site import Site
from tests.promises.system_calls import Findings, calls, check, tracer

_ONE_BY_ONE = 100
_BURSTS = 200
_PATIENCE_S = 60.0


async def traced(folder: Path, synchronous: str) -> Findings:
    """Run a gateway under strace: readings one by one, each with a commit of its own, then bursts of several boards."""
    site = Site(folder, synchronous=synchronous)
    site.write()
    careful, *hasty = await site.add_devices(4)
    async with GatewayProcess(site, tracer=tracer(folder / "trace")) as gateway:
        await finish([Board(careful, site.mqtt_port, readings=_ONE_BY_ONE, window=1)])
        await finish([Board(login, site.mqtt_port, readings=_BURSTS, window=20) for login in hasty])
        assert await gateway.stop() == 0
    return check(calls(folder / "trace"), site.mqtt_port)


async def finish(boards: list[Board]) -> None:
    async with running(boards) as at_work:
        await asyncio.wait_for(asyncio.gather(*at_work), _PATIENCE_S)


async def test_p1_every_puback_leaves_after_its_reading_is_synced(tmp_path: Path, say: Callable[[str], None]) -> None:
    findings = await traced(tmp_path, "full")
    say(f"P1: system calls of {findings.acknowledged:,} PUBACKs, {len(findings.too_early):,} before the log was synced")
    assert findings.acknowledged == _ONE_BY_ONE + 3 * _BURSTS
    assert not findings.too_early


async def test_p1_the_trace_shows_that_normal_does_not_sync(tmp_path: Path, say: Callable[[str], None]) -> None:
    findings = await traced(tmp_path, "normal")
    say(f"P1: with synchronous = normal {len(findings.too_early):,} of {findings.acknowledged:,} PUBACKs are too early")
    assert findings.acknowledged == _ONE_BY_ONE + 3 * _BURSTS
    assert len(findings.too_early) == findings.acknowledged
