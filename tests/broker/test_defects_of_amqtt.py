"""What is wrong in stock amqtt cannot be reached through the front door.

Each check is run against both: it holds here, and it fails there, or it would show nothing. Of the list that was made
when amqtt was tried, these have no check: D2 and D16 (losses that could not be reproduced), D7 (D7b without a password,
which the front door does not have), D13 (many retained messages at once, which is slow and not wrong).
"""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.storage.state import DeviceCredential
from tests.broker.defects_of_amqtt import (
    CHECKS,
    Broker,
    Check,
    Defect,
    what_was_acknowledged_is_there_after_a_kill,
)
from tests.broker.stock_amqtt import KITCHEN, StockAmqtt
from tests.gateway_process import GatewayProcess
from tests.site import PATIENCE_S, running_site

SHORT_S = 0.6
"""Patience with amqtt: most of what is wrong in it is that something never comes."""
AT_ONCE = 4


@pytest.mark.parametrize("check", [pytest.param(one, id=one.number) for one in CHECKS])
async def test_our_broker_has_it_not(check: Check, tmp_path: Path) -> None:
    async with running_site(tmp_path, mqtt=check.ours) as site:
        await check.run(Broker(site.mqtt_port, os.getpid(), site.kitchen, PATIENCE_S))


async def test_stock_amqtt_has_them_all(tmp_path: Path) -> None:
    """Else a check sees nothing, or amqtt has mended it and what mends it here may go."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def holds(check: Check) -> bool:
        passwords = tmp_path / "passwords" if check.with_a_password_file else None
        most = check.ours.get("max_connections", 0)
        async with turns:
            with StockAmqtt(max_connections=most, passwords=passwords) as stock, suppress(Defect):
                await check.run(Broker(stock.port, stock.pid, KITCHEN, SHORT_S))
                return True
        return False

    held = await asyncio.gather(*map(holds, CHECKS))
    assert [check.number for check, is_whole in zip(CHECKS, held, strict=True) if is_whole] == []


async def test_d1_our_broker_still_has_what_it_acknowledged_when_it_was_killed(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path)
    gateway.start()
    added = await asyncio.to_thread(gateway.json, "device", "add", "kitchen")
    kitchen = DeviceCredential("default", "kitchen", added["username"], added["password"])

    def broker() -> Broker:
        assert gateway.process is not None
        return Broker(gateway.mqtt_port, gateway.process.pid, kitchen, PATIENCE_S)

    def kill_and_start() -> Broker:
        gateway.kill()
        gateway.start()
        return broker()

    try:
        await what_was_acknowledged_is_there_after_a_kill(broker(), kill_and_start)
    finally:
        gateway.kill()


async def test_d1_stock_amqtt_acknowledges_what_only_its_memory_has() -> None:
    with StockAmqtt() as stock:

        def kill_and_start() -> Broker:
            stock.kill()
            stock.start()
            return Broker(stock.port, stock.pid, KITCHEN, SHORT_S)

        with pytest.raises(Defect):
            await what_was_acknowledged_is_there_after_a_kill(
                Broker(stock.port, stock.pid, KITCHEN, SHORT_S), kill_and_start
            )
