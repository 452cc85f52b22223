"""A WebSocket is where the settings say, and nowhere else."""

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cloud_sync.contract import WrongAddress
from cloud_sync.egress import Egress
from cloud_sync.integrations.mqtt_client.reasons import Failed
from cloud_sync.integrations.mqtt_client.transport import open_stream
from gateway.config import EgressSettings


async def test_p9_a_server_that_leads_on_is_not_followed() -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        if request.path == "/mqtt":
            raise web.HTTPFound(f"http://127.0.0.1:{request.url.port}/inside")
        return web.Response(text="what nobody outside may ask for")

    only_by_name = Egress(EgressSettings(policy="public", allow=("localhost",)))
    app = web.Application()
    app.router.add_get("/{path}", answer)
    async with TestServer(app) as server:
        with pytest.raises(Failed) as failed:
            await open_stream("localhost", server.port or 0, only_by_name, uses_tls=False, websocket_path="/mqtt")
    assert isinstance(failed.value.outcome, WrongAddress)
    assert "broker_url" in failed.value.hint
    assert asked == ["/mqtt"]
