"""A strict Pub/Sub: it checks tokens with Google's own library, knows its topics, and keeps Google's limits.

Google's own client for Python has talked to it: what that sent is in google_recorded.json.
"""

import json
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from functools import cache
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import crypt, jwt

from tests.cloud_sync.samples import NOW_MS

EMAIL = "gateway@project-1.iam.gserviceaccount.com"
SCOPE = "https://www.googleapis.com/auth/pubsub"


@dataclass
class Account:
    """A service account, with a key made for the test."""

    info: dict[str, str]
    certificate: bytes

    @property
    def key_file(self) -> str:
        return json.dumps(self.info)


@cache
def made_account(key_id: str = "key-1") -> Account:
    """Return the one with this key: making a key takes its time."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    info = {
        "type": "service_account",
        "project_id": "project-1",
        "private_key_id": key_id,
        "private_key": pem,
        "client_email": EMAIL,
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    return Account(info, certificate.public_bytes(serialization.Encoding.PEM))


@dataclass
class FakePubSub:
    """See the module's own words."""

    account: Account | None
    """Who may publish; None: whoever says nothing at all."""
    topics: set[str] = field(default_factory=lambda: {"projects/project-1/topics/telemetry"})
    received: list[list[dict[str, Any]]] = field(default_factory=list)
    """Requests: messages with their data decoded."""
    bodies: list[bytes] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    refuses: list[tuple[int, str, str]] = field(default_factory=list)
    """Code, status and message of the next answers."""
    judge: Callable[[bytes], tuple[int, str, str] | None] | None = None
    """Of what a request says, decoded: why it is refused."""
    now_s: float = NOW_MS / 1000
    server: TestServer = field(init=False)

    @property
    def endpoint(self) -> str:
        return str(self.server.make_url("/"))

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests.append((request.method, request.raw_path))
        answer = self._answer(request, body)
        answer.headers["date"] = formatdate(self.now_s, usegmt=True)
        return answer

    def _answer(self, request: web.Request, body: bytes) -> web.Response:
        if not self._is_allowed(request.headers.get("authorization", "")):
            return self._error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        if self.refuses:
            return self._error(*self.refuses.pop(0))
        topic, _, operation = request.path.removeprefix("/v1/").rpartition(":")
        if operation == "testIamPermissions":
            granted = json.loads(body)["permissions"] if topic in self.topics else []
            return web.json_response({"permissions": granted} if granted else {})
        assert (request.method, operation) == ("POST", "publish")
        if topic not in self.topics:
            return self._error(404, "NOT_FOUND", f"Resource not found (resource={topic}).")
        return self._publish(body)

    def _publish(self, body: bytes) -> web.Response:
        messages = json.loads(body)["messages"]
        if len(body) > 10_000_000:
            return self._error(400, "INVALID_ARGUMENT", f"The value for request_size is too large: {len(body)}")
        if not 1 <= len(messages) <= 1_000:
            return self._error(400, "INVALID_ARGUMENT", "The value for message_count is too large.")
        if len({message.get("orderingKey", "") for message in messages}) > 1:
            return self._error(
                400, "INVALID_ARGUMENT", "In a single publish request, all messages must have the same key"
            )
        for message in messages:
            attributes = message.get("attributes", {})
            if len(attributes) > 100 or any(len(name) > 256 or len(value) > 1024 for name, value in attributes.items()):
                return self._error(400, "INVALID_ARGUMENT", "attributes")
            message["data"] = b64decode(message["data"], validate=True)
        if self.judge is not None and (refusal := self.judge(said(body))) is not None:
            return self._error(*refusal)
        self.received.append(messages)
        self.bodies.append(body)
        return web.json_response({"messageIds": [str(number) for number in range(len(messages))]})

    def _is_allowed(self, authorization: str) -> bool:
        if self.account is None:
            return not authorization
        kind, _, token = authorization.partition(" ")
        if kind != "Bearer":
            return False
        signed, _, _ = token.rpartition(".")
        try:
            header, claims, _, signature = jwt._unverified_decode(token)
        except ValueError:
            return False
        self.tokens.append(token)
        return (
            crypt.verify_signature(signed, signature, self.account.certificate)
            and header == {"alg": "RS256", "typ": "JWT", "kid": self.account.info["private_key_id"]}
            and claims["iss"] == claims["sub"] == EMAIL
            and SCOPE in claims["scope"].split()
            and claims["iat"] <= self.now_s < claims["exp"] <= claims["iat"] + 3600
        )

    def _error(self, code: int, status: str, message: str) -> web.Response:
        error = {"error": {"code": code, "message": message, "status": status}}
        return web.Response(status=code, text=json.dumps(error, indent=2), content_type="application/json")


def said(body: bytes) -> bytes:
    """Return the messages of a request, decoded."""
    return b"\n".join(b64decode(message["data"]) for message in json.loads(body)["messages"])


@asynccontextmanager
async def fake_pubsub(account: Account | None) -> AsyncIterator[FakePubSub]:
    fake = FakePubSub(account)
    app = web.Application(client_max_size=20_000_000)
    app.router.add_route("*", "/{path:.*}", fake.handle)
    fake.server = TestServer(app)
    async with fake.server:
        yield fake
