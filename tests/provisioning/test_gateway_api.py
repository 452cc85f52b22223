"""The gateway's HTTP API, asked by flashing: with a real gateway as far as it has the routes, else by their shape."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gateway.model.errors import AlreadyExists, NeurogateError
from gateway.operations.tokens import create_token
from gateway.provisioning.credential import from_file
from gateway.provisioning.gateway_api import GatewayApi
from tests.ports import free_port
from tests.site import Site, reading

TOPICS = ["neurobuild/sensors/kitchen/data", "org_house/devices/kitchen/telemetry", "devices/kitchen/telemetry"]
CREDENTIAL = {"username": "house/kitchen", "password": "p", "topics": TOPICS}


class Api(BaseHTTPRequestHandler):
    """Answers as `devices` does: the credential beside the device's fields, or alone."""

    asked: ClassVar[list[tuple[str, dict[str, Any]]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append((self.path, body))
        if self.path == "/api/v1/devices/gone/credentials":
            self._answer(302, {}, location="http://127.0.0.1:1/")
        elif self.path.endswith("/credentials"):
            self._answer(201, CREDENTIAL)
        elif body["device_id"] == "taken":
            self._answer(409, {"error": {"code": "already_exists", "message": "It is taken.", "hint": ""}})
        else:
            self._answer(201, {"id": "kitchen", "device_id": "kitchen", "credential": CREDENTIAL})

    def _answer(self, status: int, body: dict[str, Any], **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def api() -> Iterator[GatewayApi]:
    Api.asked.clear()
    with HTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield GatewayApi(f"http://127.0.0.1:{server.server_port}/", "a token")
        server.shutdown()
        thread.join()


def test_a_device_is_registered_and_gets_a_new_password(api: GatewayApi) -> None:
    for credential in (api.register("kitchen", {"room": "kitchen"}), api.renew("kitchen")):
        assert (credential.organization_id, credential.device_id) == ("house", "kitchen")
        assert (credential.username, credential.password) == ("house/kitchen", "p")
    assert Api.asked == [
        ("/api/v1/devices", {"device_id": "kitchen", "metadata": {"room": "kitchen"}}),
        ("/api/v1/devices/kitchen/credentials", {}),
    ]


def test_what_the_gateway_refuses_is_told_in_its_own_words(api: GatewayApi) -> None:
    with pytest.raises(AlreadyExists, match="It is taken"):
        api.register("taken", {})


def test_the_token_follows_no_redirect(api: GatewayApi) -> None:
    with pytest.raises(NeurogateError, match="answered 302"):
        api.renew("gone")


async def test_readings_of_a_real_gateway(site: Site) -> None:
    token = (await site.command(create_token, name="me", organization_id="default", role="owner")).token
    api = GatewayApi(site.url(""), token)
    assert await asyncio.to_thread(api.newest_reading, "kitchen") is None
    for seq in (1, 2):
        async with site.http.post(
            site.url("/api/v1/sensor-data"),
            data=reading(boot_id="b", seq=seq),
            headers={"x-api-key": site.kitchen.password, "content-type": "application/json"},
        ) as response:
            assert response.status == 202
        newest = await asyncio.to_thread(api.newest_reading, "kitchen")
        assert newest is not None
        assert newest["seq"] == seq
    stranger = GatewayApi(site.url(""), "wrong")
    with pytest.raises(NeurogateError, match="token"):
        await asyncio.to_thread(stranger.newest_reading, "kitchen")


def test_no_gateway_is_said() -> None:
    with pytest.raises(NeurogateError, match=r"No gateway answers.*--offline"):
        GatewayApi(f"http://127.0.0.1:{free_port()}", "a token").newest_reading("kitchen")


def test_what_device_add_prints_is_a_credential_and_nothing_else_is(tmp_path: Path) -> None:
    file = tmp_path / "device.json"
    file.write_text(json.dumps(CREDENTIAL | {"device_id": "kitchen"}))
    assert from_file(file).organization_id == "house"
    for nonsense in ("", "[]", "{}", json.dumps(CREDENTIAL | {"device_id": "kitchen", "topics": []})):
        file.write_text(nonsense)
        with pytest.raises(NeurogateError, match="device add"):
            from_file(file)
    with pytest.raises(NeurogateError, match="cannot be read"):
        from_file(tmp_path / "none")
