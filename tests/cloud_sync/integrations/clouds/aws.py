"""A strict AWS IoT data plane: it checks signatures as AWS's own client computes them, and keeps AWS's limits."""

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from aiohttp.test_utils import TestServer
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from cloud_sync.contract import Batch, Outcome
from cloud_sync.integrations.aws_iot import AwsIot
from gateway.clock import ManualClock
from tests.cloud_sync.samples import ANYWHERE, NOW_MS

KEY_ID, SECRET_KEY = "AKIAIOSFODNN7EXAMPLE", "planted/secret+key"
KEYS = {"region": "eu-west-1", "access_key_id": KEY_ID, "secret_access_key": SECRET_KEY}
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(\S+)/(\d{8})/(\S+)/iotdata/aws4_request, SignedHeaders=(\S+), \S+"
)


@dataclass
class FakeAws:
    """See the module's own words."""

    received: list[tuple[str, bytes]] = field(default_factory=list)
    """Topic and payload."""
    bodies: list[bytes] = field(default_factory=list)
    """The payloads alone."""
    secret_key: str = SECRET_KEY
    requests: int = 0
    refuses: list[tuple[int, str, str]] = field(default_factory=list)
    """Status, error type and message of the next answers."""
    judge: Callable[[bytes], tuple[int, str, str] | None] | None = None
    """Of what a request says, decoded: why it is refused."""
    refused_topics: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    now_s: float | None = None
    """None: the time of whoever asks."""
    token: str | None = None
    server: TestServer = field(init=False)

    @property
    def endpoint(self) -> str:
        return str(self.server.make_url("/"))

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests += 1
        if (error := self._signature_error(request, body)) is not None:
            return self._error(*error)
        if self.refuses:
            return self._error(*self.refuses.pop(0))
        path = request.raw_path.partition("?")[0]
        kind, _, topic = path.removeprefix("/").partition("/")
        if kind == "retainedMessage" and request.method == "GET":
            return self._error(404, "ResourceNotFoundException", "no retained message")
        if kind != "topics" or request.method != "POST":
            return self._error(405, "MethodNotAllowedException", "no")
        return self._publish(topic, request.query["qos"], body)

    def _publish(self, topic: str, qos: str, body: bytes) -> web.Response:
        name = unquote(topic)
        if qos != "1" or "/" in topic or re.search(r"[#+]", name) or name.count("/") > 7 + 3 * name.startswith("$"):
            return self._error(400, "InvalidRequestException", "the topic is invalid")
        if len(body) > 131_072:
            return self._error(413, "RequestEntityTooLargeException", "the payload is larger than 128 KB")
        if name in self.refused_topics:
            return self._error(*self.refused_topics[name])
        if self.judge is not None and (refusal := self.judge(body)) is not None:
            return self._error(*refusal)
        self.received.append((name, body))
        self.bodies.append(body)
        return web.json_response({"message": "OK", "traceId": "0"})

    def _signature_error(self, request: web.Request, body: bytes) -> tuple[int, str, str] | None:
        match = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
        if match is None:
            return 403, "MissingAuthenticationTokenException", "Missing Authentication Token"
        if match[1] != KEY_ID:
            return 403, "UnrecognizedClientException", "The security token included in the request is invalid."
        if request.headers.get("x-amz-security-token") != self.token:
            return 403, "ExpiredTokenException", "The security token included in the request is expired"
        names = [name for name in match[4].split(";") if name != "host"]
        url = f"{request.scheme}://{request.host}{request.raw_path}"
        signed = AWSRequest(request.method, url, headers={name: request.headers[name] for name in names}, data=body)
        moment = request.headers["x-amz-date"]
        signed.context["timestamp"] = moment
        signer = SigV4Auth(Credentials(KEY_ID, self.secret_key, self.token), "iotdata", match[3])
        signature = signer.signature(signer.string_to_sign(signed, signer.canonical_request(signed)), signed)
        if not request.headers["authorization"].endswith(f"Signature={signature}"):
            return 403, "InvalidSignatureException", "The request signature we calculated does not match the signature"
        at_s = datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        if self.now_s is not None and abs(at_s - self.now_s) > 900:
            return 403, "InvalidSignatureException", f"Signature expired: {moment} is now earlier than 2026 (5 min.)"
        return None

    def _error(self, status: int, kind: str, message: str) -> web.Response:
        headers = {"x-amzn-errortype": f"{kind}:", "date": formatdate(self.now_s or NOW_MS / 1000, usegmt=True)}
        return web.Response(status=status, text=json.dumps({"message": message}), headers=headers)


@asynccontextmanager
async def fake_aws(secret_key: str = SECRET_KEY) -> AsyncIterator[FakeAws]:
    fake = FakeAws(secret_key=secret_key)
    app = web.Application(client_max_size=10_000_000)
    app.router.add_route("*", "/{path:.*}", fake.handle)
    fake.server = TestServer(app)
    async with fake.server:
        yield fake


def made(fake: FakeAws | None = None, *, clock: ManualClock | None = None, **settings: Any) -> AwsIot:
    endpoint = {} if fake is None else {"endpoint": fake.endpoint}
    raw = {"type": "aws_iot", "name": "test", "timeout_s": 5} | KEYS | endpoint | settings
    return AwsIot(AwsIot.Config.model_validate(raw), clock or ManualClock(NOW_MS), ANYWHERE)


async def sent(it: AwsIot, given: Batch) -> Outcome:
    return await it.send(given, it.encode(given))
