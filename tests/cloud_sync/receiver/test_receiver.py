"""The receiver as a process, spoken to by the real webhook integration."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cloud_sync.contract import AuthFailed, Batch, Ok, Outcome, Rejected
from cloud_sync.integrations.webhook import Webhook
from cloud_sync.signing import body_hmac, standard_webhooks
from cloud_sync.signing.standard_webhooks import parse_secret
from gateway.clock import SystemClock
from gateway.model.reading import rfc3339
from tests.cloud_sync.samples import ANYWHERE, NOW_MS, PLAIN_SECRET, STANDARD_SECRET, batch, stored


@dataclass
class Running:
    process: asyncio.subprocess.Process
    url: str
    record: Path

    async def send(self, what: Batch, body: bytes | None = None, *, secret: str = STANDARD_SECRET) -> Outcome:
        settings = {"type": "webhook", "name": "receiver", "url": self.url, "secret": secret}
        async with Webhook(Webhook.Config.model_validate(settings), SystemClock(), ANYWHERE) as webhook:
            return await webhook.send(what, webhook.encode(what) if body is None else body)

    async def stats(self) -> dict[str, Any]:
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/stats") as answer:
            stats: dict[str, Any] = await answer.json()
            return {name: count for name, count in stats.items() if count}


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Running]:
    secret_file, record = folder / "secret", folder / "record.jsonl"
    secret_file.write_text(f"{STANDARD_SECRET}\n")
    command = ["-m", "cloud_sync.receiver", "--port", "0", "--secret-file", str(secret_file)]
    command += ["--record", str(record)]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        port = json.loads(await process.stdout.readline())["listening"]
        yield Running(process, f"http://127.0.0.1:{port}", record)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_it_counts_what_came_and_what_came_again(tmp_path: Path) -> None:
    async with running(tmp_path) as receiver:
        assert await receiver.send(batch(3)) == Ok()
        assert await receiver.stats() == {"requests": 1, "readings": 3, "unique": 3}
        assert await receiver.send(batch(3)) == Ok()
        assert await receiver.stats() == {"requests": 2, "readings": 6, "unique": 3, "redeliveries": 1}
        assert await receiver.send(batch(5, "msg_2")) == Ok()
        assert await receiver.stats() == {"requests": 3, "readings": 11, "unique": 5, "redeliveries": 1}


async def test_a_redelivery_with_another_body_is_noticed(tmp_path: Path) -> None:
    async with running(tmp_path) as receiver:
        await receiver.send(batch(3))
        await receiver.send(batch(2))
        assert (await receiver.stats())["changed"] == 1


async def test_a_wrong_signature_is_answered_with_401(tmp_path: Path) -> None:
    async with running(tmp_path) as receiver:
        assert isinstance(await receiver.send(batch(), secret=PLAIN_SECRET), AuthFailed)
        async with aiohttp.ClientSession() as session, session.post(receiver.url, data=b"{}") as answer:
            assert answer.status == 401
        assert await receiver.stats() == {"signature_failures": 2}
        assert receiver.record.read_bytes() == b""


@pytest.mark.parametrize("off_by_s", [-86_400, 86_400])
async def test_a_wrong_clock_is_told_apart_from_a_wrong_signature(tmp_path: Path, off_by_s: int) -> None:
    sent_at = SystemClock().now_ms() // 1000 + off_by_s
    body = b'{"readings":[]}'
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(sent_at),
        "webhook-signature": standard_webhooks.sign(parse_secret(STANDARD_SECRET), "msg_1", sent_at, body),
        "X-Webhook-Signature": body_hmac.sign(STANDARD_SECRET, body),
    }
    async with running(tmp_path) as receiver, aiohttp.ClientSession() as session:
        async with session.post(receiver.url, data=body, headers=headers) as answer:
            assert answer.status == 401
        headers["webhook-timestamp"] = str(sent_at + 1)
        async with session.post(receiver.url, data=body, headers=headers) as answer:
            assert answer.status == 401
        assert await receiver.stats() == {"untimely": 1, "signature_failures": 1}


@pytest.mark.parametrize("broken", ["webhook-signature", "X-Webhook-Signature"])
async def test_both_signatures_must_match(tmp_path: Path, broken: str) -> None:
    now = SystemClock().now_ms() // 1000
    body = b'{"readings":[]}'
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now),
        "webhook-signature": standard_webhooks.sign(parse_secret(STANDARD_SECRET), "msg_1", now, body),
        "X-Webhook-Signature": body_hmac.sign(STANDARD_SECRET, body),
    }
    async with running(tmp_path) as receiver, aiohttp.ClientSession() as session:
        for sent, status in ((headers, 204), (headers | {broken: "v1,x"}, 401)):
            async with session.post(receiver.url, data=body, headers=sent) as answer:
                assert answer.status == status


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"readings":[1]}', b'{"readings":[{"id":"x"}]}', b"\xff"])
async def test_what_is_no_batch_is_answered_with_400(tmp_path: Path, body: bytes) -> None:
    async with running(tmp_path) as receiver:
        assert isinstance(await receiver.send(batch(), body), Rejected)
        assert await receiver.stats() == {"malformed": 1}


async def test_each_batch_is_recorded_before_it_is_answered(tmp_path: Path) -> None:
    async with running(tmp_path) as receiver:
        await receiver.send(Batch("msg_1", [stored(7)], "site-1", "log-1"))
        receiver.process.kill()
        [line] = receiver.record.read_text().splitlines()
    reading = {"id": "site-1:log-1:7", "device_id": "esp32-kitchen", "boot_id": "9f3a61c2", "seq": 7}
    reading |= {"time": rfc3339(NOW_MS), "time_source": "device", "received_at": rfc3339(NOW_MS + 20)}
    assert json.loads(line) == {"webhook_id": "msg_1", "readings": [reading]}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    async with running(tmp_path) as receiver:
        receiver.process.send_signal(number)
        async with asyncio.timeout(10):
            assert await receiver.process.wait() == 0
