"""Stopping is harmless: fast, under full load, with destinations that are away; the next start goes on."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.promises.boards import Board, acknowledged, running
from tests.promises.dead_ends import silent_server
from tests.promises.gateway_process import GatewayProcess
from tests.promises.readings import missing, repeated, stored
from tests.promises.receiver_process import ReceiverProcess, delivered
from tests.promises.site import Site

_BOARDS = 20
_READINGS = 1_000
"""Of each board: far more than are sent before the stop."""
_STOP_AFTER = 3_000
_STOP_S = 5.0
_PATIENCE_S = 60.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_stops_under_load_with_a_backlog_and_goes_on_after_the_next_start(
    number: signal.Signals, tmp_path: Path
) -> None:
    port = free_port()
    async with silent_server() as silence:
        site = Site(tmp_path, webhooks={"away": port, "hangs": silence.port})
        site.write()
        boards = [Board(login, site.mqtt_port, readings=_READINGS) for login in await site.add_devices(_BOARDS)]
        receiver, gateway = ReceiverProcess(port, site.secret, tmp_path / "record.jsonl"), GatewayProcess(site)
        async with gateway, running(boards) as at_work:
            await acknowledged_some(boards)
            await stopped_in_time(gateway, number)
            promised = sum(len(board.acked) for board in boards)
            assert promised < _BOARDS * _READINGS, "the load was over before the stop"
            assert undelivered_as_said(gateway)["away"] >= promised
            async with receiver:
                await gateway.start()
                await asyncio.wait_for(asyncio.gather(*at_work), _PATIENCE_S)
                await gateway.everything_delivered("away", _PATIENCE_S)
            await stopped_in_time(gateway, number)
    in_log = stored(site.data_dir.log_db)
    assert not missing(acknowledged(boards), in_log)
    assert not repeated(in_log)
    assert not missing(acknowledged(boards), delivered(receiver.requests()))


async def test_says_of_every_destination_how_many_readings_are_undelivered(tmp_path: Path) -> None:
    async with silent_server() as silence:
        site = Site(tmp_path, webhooks={"hangs": silence.port, "hangs-too": silence.port, "away": free_port()})
        site.write()
        (login,) = await site.add_devices(1)
        board = Board(login, site.mqtt_port, readings=10)
        async with GatewayProcess(site) as gateway:
            await asyncio.wait_for(board.run(), _PATIENCE_S)
            await stopped_in_time(gateway, signal.SIGTERM)
    assert undelivered_as_said(gateway) == {"hangs": 10, "hangs-too": 10, "away": 10}


async def acknowledged_some(boards: list[Board]) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while sum(len(board.acked) for board in boards) < _STOP_AFTER:  # noqa: ASYNC110 - boards know nothing of us
            await asyncio.sleep(0.005)


async def stopped_in_time(gateway: GatewayProcess, number: signal.Signals) -> None:
    loop = asyncio.get_running_loop()
    asked = loop.time()
    assert await gateway.stop(number) == 0
    assert loop.time() - asked < _STOP_S


def undelivered_as_said(gateway: GatewayProcess) -> dict[str, int]:
    """Return what the log says about each destination that is behind."""
    return {event["destination"]: event["undelivered"] for event in gateway.said if "undelivered" in event}
