"""What is measured is what is said to be: each measure runs, and who stores in a comparison has stored everything."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.bench import brokers, peers, site
from tests.bench.disk import disk
from tests.bench.latency import latency


@pytest.mark.parametrize("name", peers.CONTENDERS)
async def test_each_contender_stores_what_it_says(tmp_path: Path, name: str) -> None:
    logins = await site.prepare(tmp_path, devices=2, readings=0)
    turn = await peers.turn(name, tmp_path, logins, window=10, seconds=0.4)
    assert turn.acked > 0
    assert turn.rate > 0
    assert turn.stored == (0 if name == brokers.AMQTT else turn.acked)


async def test_every_reading_that_is_timed_comes_to_the_webhook(tmp_path: Path) -> None:
    table = await latency(tmp_path, connections=50, seconds=0.3, rounds=1, rates=[100])
    *_, delivered, memory, _ = table
    assert re.fullmatch(r"[\d.]+ / [\d.]+ ms", delivered[1])
    assert memory[0].startswith("memory, 50 connections")


async def test_a_reading_costs_the_disk_at_least_itself() -> None:
    with TemporaryDirectory(dir="/var/tmp") as folder:  # as the command does: /tmp may be a tmpfs
        table = await disk(Path(folder), seconds=0.4, rates=[100], delays_ms=[0])
    meanwhile, afterwards = map(float, table[-1][1].split(" + "))
    assert meanwhile >= 0.5
    assert afterwards > 0
