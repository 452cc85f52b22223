"""P1: kill -9 in the middle loses no notification, and a receiver that honours the id gets none twice."""

import asyncio
import json
import sys
from pathlib import Path
from signal import SIGKILL

from aiohttp import web
from aiohttp.test_utils import TestServer

PATIENCE_S = 30


class Receiver:
    """Honours the id: what it has, it has once."""

    def __init__(self) -> None:
        self.by_id: dict[str, bytes] = {}
        self.requests = 0
        self.came = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        self.requests += 1
        body = await request.read()
        message_id = request.headers["webhook-id"]
        assert self.by_id.setdefault(message_id, body) == body  # the same id says the same
        self.came.set()
        return web.Response(status=503 if self.requests % 5 == 0 else 204)

    def told(self) -> list[str]:
        messages = [json.loads(body) for body in self.by_id.values()]
        return [one["id"] for message in messages for one in message.get("notifications", [message])]


async def start(folder: Path, url: str, count: int) -> asyncio.subprocess.Process:
    module = "tests.cloud_sync.notifications.killed"
    arguments = (sys.executable, "-m", module, str(folder), url, str(count))
    return await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)


async def test_p1_kill_9_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/", receiver.handle)
    taken: list[str] = []
    async with TestServer(app) as server, asyncio.timeout(PATIENCE_S):
        url = str(server.make_url("/"))
        for count in (40, 40, 0):
            process = await start(tmp_path, url, count)
            assert process.stdout is not None
            while line := (await process.stdout.readline()).decode().strip():
                taken.append(line)
                if count and len(taken) % 30 == 0:
                    receiver.came.clear()
                    await receiver.came.wait()
                    process.kill()
            assert await process.wait() == (-SIGKILL if count else 0)
    assert len(taken) >= 60
    told = receiver.told()
    assert len(set(told)) == len(told)
    assert set(taken) <= set(told)  # what was on disk and not yet said may be there, too
