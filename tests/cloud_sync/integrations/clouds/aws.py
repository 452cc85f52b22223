"""A strict AWS IoT data plane: it checks signatures as AWS's own client computes them, and keeps AWS's limits."""

import json
import re
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from cloud_sync.integrations.aws_iot import AwsIot
from gateway.clock import ManualClock
from tests.cloud_sync.integrations.clouds.http_cloud import HttpCloud, configured, served

KEY_ID, SECRET_KEY = "AKIAIOSFODNN7EXAMPLE", "planted/secret+key"
KEYS = {"region": "eu-west-1", "access_key_id": KEY_ID, "secret_access_key": SECRET_KEY}
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(\S+)/(\d{8})/(\S+)/iotdata/aws4_request, SignedHeaders=(\S+), \S+"
)


@dataclass
class FakeAws(HttpCloud):
    """See the module's own words."""

    received: list[tuple[str, bytes]] = field(default_factory=list)
    """Topic and payload."""
    secret_key: str = SECRET_KEY
    refused_topics: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    token: str | None = None

    def _answer(self, request: web.Request, body: bytes) -> web.Response:
        if (error := self._signature_error(request, body)) is not None:
            return self._error(*error)
        if (refusal := self._refusal()) is not None:
            return refusal
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
        if (refusal := self._judged(body)) is not None:
            return refusal
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
        headers = {"x-amzn-errortype": f"{kind}:"}
        return web.Response(status=status, text=json.dumps({"message": message}), headers=headers)


def fake_aws(secret_key: str = SECRET_KEY) -> AbstractAsyncContextManager[FakeAws]:
    return served(FakeAws(secret_key=secret_key))


def made(fake: FakeAws | None = None, *, clock: ManualClock | None = None, **settings: Any) -> AwsIot:
    return configured(AwsIot, fake, clock, KEYS | settings)
