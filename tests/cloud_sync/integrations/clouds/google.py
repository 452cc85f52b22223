"""A strict Pub/Sub: it checks tokens with Google's own library, knows its topics, and keeps Google's limits.

Google's own client for Python has talked to it: what that sent is in google_recorded.json.
"""

import json
from base64 import b64decode
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import crypt, jwt

from cloud_sync.integrations.google_iot import GoogleIot
from gateway.clock import ManualClock
from tests.cloud_sync.integrations.clouds.http_cloud import HttpCloud, configured, served
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


@dataclass(kw_only=True)
class FakePubSub(HttpCloud):
    """See the module's own words."""

    account: Account | None
    """Who may publish; None: whoever says nothing at all."""
    topics: set[str] = field(default_factory=lambda: {"projects/project-1/topics/telemetry"})
    received: list[list[dict[str, Any]]] = field(default_factory=list)
    """Requests: messages with their data decoded."""
    tokens: list[str] = field(default_factory=list)
    now_s: float = NOW_MS / 1000

    def _answer(self, request: web.Request, body: bytes) -> web.Response:
        if not self._is_allowed(request.headers.get("authorization", "")):
            return self._error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        if (refusal := self._refusal()) is not None:
            return refusal
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
        if (refusal := self._judged(body)) is not None:
            return refusal
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

    def said(self, body: bytes) -> bytes:
        return b"\n".join(b64decode(message["data"]) for message in json.loads(body)["messages"])

    def _error(self, status: int, code: str, message: str) -> web.Response:
        error = {"error": {"code": status, "message": message, "status": code}}
        return web.Response(status=status, text=json.dumps(error, indent=2), content_type="application/json")


def fake_pubsub(account: Account | None) -> AbstractAsyncContextManager[FakePubSub]:
    return served(FakePubSub(account=account))


def made(fake: FakePubSub | None = None, *, clock: ManualClock | None = None, **settings: Any) -> GoogleIot:
    """As the account with the key that is made first."""
    return configured(GoogleIot, fake, clock, {"service_account_key": made_account().key_file} | settings)
