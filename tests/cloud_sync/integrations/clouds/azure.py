"""A strict Azure IoT Hub, as devices see it over HTTPS: it checks tokens, knows its devices, and keeps Azure's limits.

Microsoft's own client for Node has talked to it: what that sent is in azure_recorded.json.
"""

import hmac
import json
import ssl
from base64 import b64decode, b64encode
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from cloud_sync.integrations.azure_iot import AzureIot
from gateway.clock import ManualClock
from tests.cloud_sync.integrations.clouds.http_cloud import HttpCloud, configured, served
from tests.cloud_sync.samples import NOW_MS

HUB = "hub.azure-devices.net"
POLICY_KEY = b64encode(b"planted in a test: of the policy").decode()
DEVICE_KEY = b64encode(b"planted in a test: of a device!!").decode()
POLICY = f"HostName={HUB};SharedAccessKeyName=device;SharedAccessKey={POLICY_KEY}"
DEVICE = f"HostName={HUB};DeviceId=d1;SharedAccessKey={DEVICE_KEY}"
Message = dict[str, Any]


@dataclass
class FakeHub(HttpCloud):
    """See the module's own words."""

    devices: set[str] = field(default_factory=lambda: {"d1", "d2", "d3", "esp32-kitchen"})
    received: list[tuple[str, list[Message]]] = field(default_factory=list)
    """Device and messages, each with its body decoded."""
    tokens: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    """Messages to a device: their lock tokens."""
    now_s: float = NOW_MS / 1000
    keys: dict[str, str] = field(default_factory=lambda: {"device": POLICY_KEY, "iothubowner": POLICY_KEY})

    def _answer(self, request: web.Request, body: bytes) -> web.Response:
        _, kind, device, *rest = unquote(request.path).split("/")
        if kind != "devices" or request.query.get("api-version") != "2021-04-12":
            return self._error(400, "InvalidProtocolVersion", "no")
        if not self._is_allowed(request.headers.get("authorization", ""), device):
            return self._error(401, "IotHubUnauthorizedAccess", "Unauthorized")
        if (refusal := self._refusal()) is not None:
            return refusal
        if device not in self.devices:
            return self._error(404, "DeviceNotFound", "E404001: not found")
        if rest[:2] == ["messages", "deviceBound"]:
            return self._bound(request.method, rest[2:])
        assert (request.method, rest) == ("POST", ["messages", "events"])
        return self._events(request, device, body)

    def _is_allowed(self, authorization: str, device: str) -> bool:
        kind, _, pairs = authorization.partition(" ")
        given = dict(parse_qsl(pairs.replace("+", "%2B"), strict_parsing=True)) if pairs else {}
        encoded = dict(pair.split("=", 1) for pair in pairs.split("&")).get("sr", "")
        whole = f"{HUB}/devices"
        policy = given.get("skn")
        if policy is None:
            key = DEVICE_KEY if device == "d1" else None
            is_meant = given.get("sr") == f"{whole}/{device}"
        else:
            key = self.keys.get(policy)
            is_meant = given.get("sr") in (HUB, whole, f"{whole}/{device}")
        if kind != "SharedAccessSignature" or key is None or not is_meant or int(given["se"]) <= self.now_s:
            return False
        self.tokens.append(authorization)
        expected = hmac.digest(b64decode(key), f"{encoded}\n{given['se']}".encode(), "sha256")
        return hmac.compare_digest(b64decode(given["sig"]), expected)

    def _events(self, request: web.Request, device: str, body: bytes) -> web.Response:
        if request.headers.get("content-type") != "application/vnd.microsoft.iothub.json":
            return self._error(400, "InvalidContentEncodingOrType", "only batches here")
        if request.headers.get("iothub-to") != f"/devices/{device}/messages/events":
            return self._error(400, "ArgumentInvalid", "iothub-to")
        if len(body) > 261_119:
            return self._error(413, "MessageTooLarge", "E413001")
        messages = json.loads(body)
        for message in messages:
            if set(message) - {"body", "base64Encoded", "properties"}:
                return self._error(400, "ArgumentInvalid", "E400004")
            message["body"] = b64decode(message["body"], validate=True)
        if (refusal := self._judged(body)) is not None:
            return refusal
        self.received.append((device, messages))
        self.bodies.append(body)
        return web.Response(status=204)

    def _bound(self, method: str, rest: list[str]) -> web.Response:
        if method == "GET":
            if not self.waiting:
                return web.Response(status=204)
            return web.Response(body=b"a command", headers={"etag": f'"{self.waiting.pop()}"'})
        assert (method, rest[1]) == ("POST", "abandon")
        self.waiting.append(rest[0])
        return web.Response(status=204)

    def said(self, body: bytes) -> bytes:
        return b"\n".join(b64decode(message["body"]) for message in json.loads(body))

    def _error(self, status: int, code: str, message: str) -> web.Response:
        text = json.dumps({"Message": f"ErrorCode:{code};{message}", "ExceptionMessage": "Tracking ID:0"})
        return web.Response(status=status, text=text)


def fake_hub(tls: ssl.SSLContext | None = None) -> AbstractAsyncContextManager[FakeHub]:
    return served(FakeHub(), tls)


def made(fake: FakeHub | None = None, *, clock: ManualClock | None = None, **settings: Any) -> AzureIot:
    return configured(AzureIot, fake, clock, {"connection_string": POLICY} | settings)
