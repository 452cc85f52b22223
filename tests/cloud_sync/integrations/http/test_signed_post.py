"""What holds for every webhook and callback; how answers are classified is in `test_webhook.py`."""

import asyncio

from aiohttp import web
from aiohttp.test_utils import TestServer

from cloud_sync.contract import Ok
from cloud_sync.integrations.http.signed_post import SignedPost
from gateway.clock import ManualClock
from tests.cloud_sync.samples import ANYWHERE
from tests.cloud_sync.site import until


async def test_at_most_ten_requests_are_under_way_at_once() -> None:
    under_way, most = 0, 0
    go_on = asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await go_on.wait()
        under_way -= 1
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/", answer)
    async with TestServer(app) as server:
        url = str(server.make_url("/"))
        async with SignedPost(url, [], ManualClock(), ANYWHERE, timeout_s=20) as post:
            sent = [asyncio.create_task(post.send(f"msg_{number}", b"{}")) for number in range(25)]
            await until(lambda: under_way == 10)
            await asyncio.sleep(0.1)  # an eleventh would have come
            go_on.set()
            assert await asyncio.gather(*sent) == [Ok()] * 25
    assert most == 10
