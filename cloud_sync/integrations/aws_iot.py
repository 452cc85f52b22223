"""Publish readings to AWS IoT Core over HTTPS.

A message is a JSON array of readings, under 128 KB, at QoS 1: AWS has it when it answers. Its topic is a template, so a
batch is one message or, with `{device_id}` in the topic, one for each device. Rules see every reading's `id`, which
tells a repetition. A topic `$aws/rules/NAME/…` goes to that rule alone (Basic Ingest) and costs no messaging.

Sources: botocore's model of iot-data, https://docs.aws.amazon.com/iot/latest/developerguide/http.html and
https://docs.aws.amazon.com/general/latest/gr/iot-core.html (limits).
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, Self
from urllib.parse import quote

from pydantic import ConfigDict, Field, field_validator, model_validator
from yarl import URL

from cloud_sync.contract import (
    AuthFailed,
    Batch,
    Forwards,
    Integration,
    NotConnected,
    Outcome,
    Rejected,
    RetryAfter,
    Tests,
    TooLarge,
    WrongAddress,
)
from cloud_sync.egress import Egress
from cloud_sync.integrations.http.exchange import SUCCESS, Answer, Exchange, outcome_of
from cloud_sync.integrations.http.line import CertificatePem, HostUrl, HttpConfig, PrivateKeyPem
from cloud_sync.integrations.http.part_sender import PartSender
from cloud_sync.integrations.http.server_check import PATIENCE_S, check_server, clock_words
from cloud_sync.payload.in_parts import Frame, Key, Part, in_parts, parts_of
from cloud_sync.payload.readings_batch import as_json
from cloud_sync.payload.topic_template import TopicTemplate
from cloud_sync.signing import sigv4
from gateway.clock import Clock
from gateway.model.finding import Finding, broken, fine, warning
from gateway.model.reading import StoredReading, wire_reading
from gateway.model.secret import Secret

_SERVICE = "iotdata"  # the name that the data plane is signed for
_MAX_BYTES = 128 * 1024
_TOPIC_BYTES = 256
_SLASHES = 7
_BASIC_INGEST = re.compile(r"\$aws/rules/[A-Za-z0-9_]+/")
_USUAL_PORT = 443
_SHOWS_CERTIFICATE = "x-amzn-http-ca"
"""What is said to be spoken on the usual port, where AWS asks others for no certificate."""


class AwsIot(Integration, Forwards, Tests):
    """Publish readings to AWS IoT Core over HTTPS."""

    type = "aws_iot"

    class Config(HttpConfig):
        """Settings of AWS IoT Core."""

        model_config = ConfigDict(hide_input_in_errors=True)

        region: str | None = Field(
            None, pattern=r"^[a-z]{2}(-[a-z]+)+-\d$", description="Such as `eu-central-1`; needed with access keys."
        )
        access_key_id: str | None = Field(
            None, min_length=16, max_length=128, description="Of the user that publishes."
        )
        secret_access_key: Secret | None = Field(None, description="Of the same user; signs each request.")
        session_token: Secret | None = Field(None, description="Goes along with temporary keys.")
        client_cert: CertificatePem | None = Field(
            None, description="Instead of access keys: the certificate of a thing, in PEM, by `${file:…}`."
        )
        client_key: PrivateKeyPem | None = Field(None, description="The private key of that certificate, in PEM.")
        client_cert_port: Literal[8443, 443] = Field(
            8443, description="Where the certificate is shown: 443 where a firewall lets nothing else out."
        )
        endpoint: HostUrl | None = Field(
            None,
            description="The account's own data endpoint, such as `https://x-ats.iot.eu-central-1.amazonaws.com`; by "
            "default the region's. Needed with a certificate.",
        )
        topic: str = Field(
            "neurogate/{gateway_id}/readings",
            description="Where to publish; `{device_id}`, `{organization_id}` and `{gateway_id}` are filled in. "
            "`$aws/rules/NAME/…` goes to that rule alone.",
        )
        rate_limit_per_minute: int = Field(
            1_000, ge=0, description="Requests per minute; 0 lifts the limit. A request carries one topic's readings."
        )

        @field_validator("endpoint", mode="before")
        @classmethod
        def _with_or_without_scheme(cls, endpoint: object) -> object:
            return f"https://{endpoint}" if isinstance(endpoint, str) and "://" not in endpoint else endpoint

        @field_validator("topic")
        @classmethod
        def _can_be_published_to(cls, topic: str) -> str:
            _check_topic(topic)
            return topic

        @model_validator(mode="after")
        def _has_one_identity(self) -> Self:
            keys = (self.access_key_id, self.secret_access_key)
            certificate = (self.client_cert, self.client_key)
            if any(keys) == any(certificate) or not (all(keys) or all(certificate)):
                raise ValueError("set access_key_id and secret_access_key, or client_cert and client_key.")
            if all(keys) and self.region is None:
                raise ValueError("access keys sign for a region: set region.")
            if all(certificate):
                if self.endpoint is None:
                    raise ValueError("a certificate is known at the account's own endpoint: set endpoint.")
                self.line(client_cert=self.client_cert, client_key=_text(self.client_key)).tls()
            return self

        def base(self) -> URL:
            """Return where it is connected to."""
            if self.endpoint is None:
                suffix = "amazonaws.com.cn" if (self.region or "").startswith("cn-") else "amazonaws.com"
                return URL(f"https://data-ats.iot.{self.region}.{suffix}")
            base = URL(str(self.endpoint))
            is_usual = base.explicit_port is None and base.scheme == "https"
            return base.with_port(self.client_cert_port) if self.client_cert is not None and is_usual else base

    def __init__(self, config: Config, clock: Clock, egress: Egress) -> None:
        super().__init__(config, clock, egress)
        self._config = config
        self._base = config.base()
        self._topic = TopicTemplate(config.topic)
        key, token = _text(config.secret_access_key), _text(config.session_token)
        self._keys = sigv4.Keys(config.access_key_id or "", key, token) if config.access_key_id and key else None
        alpn = (_SHOWS_CERTIFICATE,) if self._keys is None and self._base.port == _USUAL_PORT else ()
        self._line = config.line(client_cert=config.client_cert, client_key=_text(config.client_key), alpn=alpn)
        self._exchange = Exchange(
            self._base.raw_host or "",
            clock,
            egress,
            timeout_s=config.timeout_s,
            private=[part for part in (key, token) if part],
            line=self._line,
        )
        self._parts = PartSender(clock, per_minute=config.rate_limit_per_minute, max_bytes=_MAX_BYTES)

    async def __aenter__(self) -> Self:
        """Open the session; connections are made when there is something to send."""
        await self._exchange.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the session."""
        await self._exchange.__aexit__(*exc)

    def encode(self, batch: Batch) -> bytes:
        """Return the messages, each a JSON array."""

        def item(reading: StoredReading) -> bytes:
            return as_json(wire_reading(reading, gateway_id=batch.gateway_id, log_uuid=batch.log_uuid))

        frame = Frame(b"[", b"]", _MAX_BYTES, len(batch.readings))
        return in_parts(batch, self._topic_of(batch), item, frame)

    async def send(self, batch: Batch, body: bytes) -> Outcome:
        """Publish what AWS does not have yet, and classify the answer."""
        return await self._parts.send(parts_of(batch, body, self._topic_of(batch)), self._publish)

    async def check(self) -> list[Finding]:
        """Ask for a message that nobody has retained: that needs our signature, and changes nothing."""
        url = self._url("retainedMessage", "neurogate/check", "")

        async def ask() -> Answer | NotConnected | WrongAddress:
            headers = self._signed("GET", url, {}, b"")
            return await self._exchange.ask("GET", url, headers=headers, timeout_s=PATIENCE_S)

        found, answer = await check_server(
            self._base, self._line, ask, self.clock, self.egress, tolerance_s=sigv4.TOLERANCE_S
        )
        return found if answer is None else [*found, _meaning(answer, self.clock)]

    async def _publish(self, part: Part) -> Outcome:
        (topic,) = part.key
        if len(topic.encode()) > _TOPIC_BYTES:
            return Rejected(f"the topic for this device has more than {_TOPIC_BYTES} bytes", part.rows)
        url = self._url("topics", topic, "?qos=1&contentType=application%2Fjson")
        headers = self._signed("POST", url, {"content-type": "application/json"}, part.body)
        return _outcome_of(await self._exchange.ask("POST", url, headers=headers, body=part.body), self.clock)

    def _url(self, operation: str, topic: str, query: str) -> URL:
        # The topic is one part of the path. Built by hand: another encoding than the one that is signed is refused.
        return URL(f"{self._base.origin()}/{operation}/{quote(topic, safe='')}{query}", encoded=True)

    def _signed(self, method: str, url: URL, headers: dict[str, str], body: bytes) -> dict[str, str]:
        if self._keys is None:
            return headers
        now_s, region = self.clock.now_ms() / 1000, self._config.region or ""
        added = sigv4.signed_headers(
            method, str(url), headers, body, keys=self._keys, region=region, service=_SERVICE, now_s=now_s
        )
        return headers | added

    def _topic_of(self, batch: Batch) -> Callable[[StoredReading], Key]:
        def topic_of(reading: StoredReading) -> Key:
            return (self._topic.filled(reading, batch.gateway_id),)

        return topic_of


def _check_topic(topic: str) -> None:
    """Raise ValueError for a topic that AWS does not publish to."""
    rest = TopicTemplate(topic).example
    rest = _BASIC_INGEST.sub("", rest, count=1) if rest.startswith("$aws/") else rest
    if rest.startswith("$"):
        raise ValueError("of the topics with $ only $aws/rules/NAME/… can be published to.")
    if not rest or set(rest) & set("#+\0") or set(rest.split("/")) & {".", ".."}:
        raise ValueError("it is empty, or has a wildcard or another part that no topic can have.")
    if rest.count("/") > _SLASHES or len(topic.encode()) > _TOPIC_BYTES:
        raise ValueError(f"a topic has at most {_SLASHES} slashes and {_TOPIC_BYTES} bytes.")


def _text(secret: Secret | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


# What AWS says


_THROTTLED = {
    *("Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException"),
    *(
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "LimitExceededException",
        "BandwidthLimitExceeded",
        "SlowDown",
    ),
}
_NOT_ALLOWED = {"ForbiddenException", "AccessDenied", "AccessDeniedException", "NotAuthorized", "UnauthorizedException"}
_UNKNOWN_TO_IT = {
    *("UnrecognizedClientException", "InvalidClientTokenId", "MissingAuthenticationToken", "OptInRequired"),
    *("MissingAuthenticationTokenException", "IncompleteSignature", "IncompleteSignatureException"),
    *("InvalidSignatureException", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException"),
}
_TOO_FAR = {"RequestExpired", "RequestTimeTooSkewed"}
_TOO_FAR_WORDS = ("Signature expired", "Signature not yet current")
_TYPE_IN_BODY = re.compile(r'"(?:__type|code|Code)"\s*:\s*"(?:[^"]*#)?(\w+)"')


def _error_type(answer: Answer) -> str:
    """Return what went wrong by AWS's own name for it, or nothing. A status means different things on its planes."""
    named = answer.headers.get("x-amzn-errortype", "").partition(":")[0].rpartition("#")[2]
    in_body = _TYPE_IN_BODY.search(answer.text)
    return named or (in_body[1] if in_body else "")


def _outcome_of(answer: Answer | NotConnected | WrongAddress, clock: Clock) -> Outcome:
    if not isinstance(answer, Answer) or answer.status in SUCCESS:
        return outcome_of(answer)
    kind = _error_type(answer)
    reason = f"{kind}, {answer.reason}" if kind and kind not in answer.reason else answer.reason
    if kind in _TOO_FAR or any(words in answer.text for words in _TOO_FAR_WORDS):
        off_ms = None if answer.date_ms is None else answer.date_ms - clock.now_ms()
        words = "this machine's clock is wrong" if off_ms is None else clock_words(off_ms)
        return AuthFailed(f"{words}: set it by NTP ({reason})")
    if kind in _THROTTLED:
        return RetryAfter(answer.patience_s, reason)
    if kind in _NOT_ALLOWED | _UNKNOWN_TO_IT:
        return AuthFailed(reason)
    if kind == "RequestEntityTooLargeException":
        return TooLarge(reason)
    return outcome_of(replace(answer, reason=reason))


def _meaning(answer: Answer, clock: Clock) -> Finding:
    """Say what the answer to a check means."""
    kind = _error_type(answer)
    if answer.status in SUCCESS or kind == "ResourceNotFoundException":
        return fine("AWS IoT accepts who we are.")
    if kind in _NOT_ALLOWED:
        words = "AWS IoT answers, but does not let us look at a retained message: whether we may publish is not known."
        return warning(
            words, "Allow iot:Publish on the topic in its policy; for this check also iot:GetRetainedMessage."
        )
    outcome = _outcome_of(answer, clock)
    reason = getattr(outcome, "reason", "")
    match outcome:
        case AuthFailed():
            hint = "Correct access_key_id, secret_access_key, session_token and region, or the certificate and its key."
            return broken(f"AWS IoT does not accept who we are: {reason}.", hint)
        case RetryAfter():
            return warning(f"AWS IoT asks for patience: {reason}.", "See the quotas of the account.")
        case _:
            return warning(f"AWS IoT answers in an unexpected way: {reason}.", "Is `endpoint` right?")
