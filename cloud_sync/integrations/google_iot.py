"""Publish readings to Google Cloud Pub/Sub over HTTPS.

Google ended Cloud IoT Core on 2023-08-16: no device can be told to Google any more. What remains of it is where its
telemetry went, Pub/Sub, and that is where readings go. Each is a message: the reading as JSON, with the attributes that
Cloud IoT Core gave (`deviceId`, `deviceRegistryId`, `deviceRegistryLocation`, `projectId`), so that what reads the
topic may stay as it is, and with the reading's `id`, which tells a repetition.

A request carries messages of one device, under one ordering key: at most 1,000, and 10,000,000 bytes. It is taken whole
or not at all.

Sources: https://cloud.google.com/pubsub/docs/reference/rest/v1/projects.topics/publish,
https://cloud.google.com/pubsub/quotas, https://cloud.google.com/pubsub/docs/reference/error-codes
"""

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Self

from pydantic import ConfigDict, Field, PrivateAttr, field_validator, model_validator
from pydantic_core import from_json
from yarl import URL

from cloud_sync.contract import (
    AuthFailed,
    Batch,
    Forwards,
    Integration,
    NotConnected,
    Outcome,
    RetryAfter,
    Tests,
    TooLarge,
    WrongAddress,
)
from cloud_sync.egress import Egress
from cloud_sync.integrations.http.exchange import SUCCESS, Answer, Exchange, outcome_of
from cloud_sync.integrations.http.lasting_token import LastingToken
from cloud_sync.integrations.http.line import HostUrl, HttpConfig
from cloud_sync.integrations.http.part_sender import PartSender
from cloud_sync.integrations.http.server_check import PATIENCE_S, check_server, told_of_the_clock
from cloud_sync.payload.in_parts import Frame, Key, Part, in_parts, parts_of
from cloud_sync.payload.readings_batch import as_json
from cloud_sync.signing.google_jwt import ServiceAccount, parse_service_account, token
from gateway.clock import Clock
from gateway.model.finding import Finding, broken, fine, warning
from gateway.model.reading import StoredReading, rfc3339, wire_reading
from gateway.model.secret import Secret

_MAX_BYTES = 10_000_000
_MAX_MESSAGES = 1_000
_SCOPE = "https://www.googleapis.com/auth/pubsub"
_MAY_PUBLISH = "pubsub.topics.publish"
_TOLERANCE_S = 300
_PROJECT = r"^[a-z][a-z0-9.:-]{4,62}[a-z0-9]$"
_REGION = r"^[a-z]+(-[a-z]+)+\d+$"
_TOPIC = re.compile(r"(?!goog)[A-Za-z][A-Za-z0-9._~+%-]{2,254}")


class GoogleIot(Integration, Forwards, Tests):
    """Publish readings to Google Cloud Pub/Sub over HTTPS."""

    type = "google_iot"

    class Config(HttpConfig):
        """Settings of Google Cloud."""

        model_config = ConfigDict(hide_input_in_errors=True)

        service_account_key: Secret = Field(
            description="Key of a service account that may publish (roles/pubsub.publisher): the JSON of its file, by "
            "`${file:…}`."
        )
        project_id: str | None = Field(
            None, pattern=_PROJECT, description="The project of the topic; by default the service account's."
        )
        topic: str = Field("telemetry", description="The topic to publish to, by its name.")
        region: str | None = Field(
            None,
            pattern=_REGION,
            description="Such as `europe-west3`: publish in this region, so that a device's messages keep their order "
            "for whoever reads them in order.",
        )
        registry_id: str | None = Field(
            None, pattern=r"^[A-Za-z][A-Za-z0-9._~+%-]{2,254}$", description="Told to readers as `deviceRegistryId`."
        )
        endpoint: HostUrl | None = Field(
            None, description="Connect to this address instead of Google's, such as a private one."
        )
        rate_limit_per_minute: int = Field(
            1_000, ge=0, description="Requests per minute; 0 lifts the limit. A request carries one device's readings."
        )

        _account: ServiceAccount = PrivateAttr()

        @field_validator("service_account_key")
        @classmethod
        def _can_be_read(cls, service_account_key: Secret) -> Secret:
            parse_service_account(service_account_key.get_secret_value())
            return service_account_key

        @field_validator("topic")
        @classmethod
        def _is_a_name(cls, topic: str) -> str:
            if not _TOPIC.fullmatch(topic):
                raise ValueError("it is a topic's own name, 3 to 255 characters, and not projects/…/topics/….")
            return topic

        @model_validator(mode="after")
        def _has_a_project(self) -> Self:
            self._account = parse_service_account(self.service_account_key.get_secret_value())
            if not re.fullmatch(_PROJECT, self.project):
                raise ValueError("the service account's key names no project that there could be: set project_id.")
            return self

        @property
        def account(self) -> ServiceAccount:
            """Who publishes."""
            return self._account

        @property
        def project(self) -> str:
            """Whose topic it is."""
            return self.project_id or self._account.project_id

    def __init__(self, config: Config, clock: Clock, egress: Egress) -> None:
        super().__init__(config, clock, egress)
        self._config = config
        account = config.account
        self._project = config.project
        host = "pubsub.googleapis.com" if config.region is None else f"{config.region}-pubsub.googleapis.com"
        self._base = URL(f"https://{host}" if config.endpoint is None else str(config.endpoint))
        self._line = config.line()
        self._token = LastingToken(
            clock, lambda now_s, ends_s: token(account, _SCOPE, issued_s=now_s, expires_s=ends_s)
        )
        self._exchange = Exchange(
            self._base.raw_host or "",
            clock,
            egress,
            timeout_s=config.timeout_s,
            private=["Bearer ", "PRIVATE KEY"],
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
        """Return the requests' bodies, each a list of messages."""
        registry = {
            "projectId": self._project,
            "deviceRegistryId": self._config.registry_id,
            "deviceRegistryLocation": self._config.region,
        }
        of_all = {name: value for name, value in registry.items() if value is not None}

        def message(reading: StoredReading) -> bytes:
            wire = wire_reading(reading, gateway_id=batch.gateway_id, log_uuid=batch.log_uuid)
            attributes = {
                **of_all,
                "id": wire["id"],
                "deviceId": reading.device_id,
                "organizationId": reading.organization_id,
                "gatewayId": batch.gateway_id,
                "time": rfc3339(reading.time_ms),
            }
            data = b64encode(as_json(wire)).decode()
            return as_json({"data": data, "attributes": attributes, "orderingKey": "/".join(_device(reading))})

        return in_parts(batch, _device, message, Frame(b'{"messages":[', b"]}", _MAX_BYTES, _MAX_MESSAGES))

    async def send(self, batch: Batch, body: bytes) -> Outcome:
        """Publish what Google does not have yet, and classify the answer."""
        return await self._parts.send(parts_of(batch, body, _device), self._publish)

    async def check(self) -> list[Finding]:
        """Ask whether we may publish: that needs our token and no permission, and changes nothing."""

        async def ask() -> Answer | NotConnected | WrongAddress:
            return await self._ask("testIamPermissions", as_json({"permissions": [_MAY_PUBLISH]}), PATIENCE_S)

        found, answer = await check_server(
            self._base, self._line, ask, self.clock, self.egress, tolerance_s=_TOLERANCE_S
        )
        return found if answer is None else [*found, self._meaning(answer)]

    async def _publish(self, part: Part) -> Outcome:
        return _outcome_of(await self._ask("publish", part.body), self.clock)

    async def _ask(
        self, operation: str, body: bytes, patience_s: float | None = None
    ) -> Answer | NotConnected | WrongAddress:
        path = f"/v1/projects/{self._project}/topics/{self._config.topic.replace('%', '%25')}:{operation}"
        headers = {"authorization": f"Bearer {self._token.current()}", "content-type": "application/json"}
        url = URL(f"{self._base.origin()}{path}", encoded=True)
        return await self._exchange.ask(
            "POST", url, headers=headers, body=body, timeout_s=patience_s, reads_success=patience_s is not None
        )

    def _meaning(self, answer: Answer) -> Finding:
        """Say what the answer to a check means."""
        topic = f"the topic {self._config.topic} of {self._project}"
        if answer.status in SUCCESS:
            if _MAY_PUBLISH in answer.text:
                return fine(f"Google accepts who we are, and that we publish to {topic}.")
            hint = "Make the topic, or give the service account the role roles/pubsub.publisher on it."
            return broken(f"We may not publish to {topic}, or it is not there.", hint)
        match _outcome_of(answer, self.clock):
            case AuthFailed(reason):
                hint = "Is the key of service_account_key still there, and its service account enabled?"
                return broken(f"Google does not accept who we are: {reason}.", hint)
            case RetryAfter(_, reason):
                return warning(f"Google asks for patience: {reason}.", "See the quotas of the project.")
            case _:
                return warning(f"Google answers in an unexpected way: {answer.reason}.", "Is `endpoint` right?")


def _device(reading: StoredReading) -> Key:
    return reading.organization_id, reading.device_id


# What Google says


_MEANINGS: Mapping[str, Callable[[str], Outcome]] = {
    **dict.fromkeys(("ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN"), NotConnected),
    "FAILED_PRECONDITION": WrongAddress,  # of the topic: its storage policy, or its key
}
_REQUEST_SIZE = "request_size is too large"


def _status(answer: Answer) -> str:
    """Return the canonical name of what went wrong, or nothing."""
    try:
        error = from_json(answer.text, allow_partial=True)["error"]
        return str(error["status"])
    except (ValueError, LookupError, TypeError):
        return ""


def _outcome_of(answer: Answer | NotConnected | WrongAddress, clock: Clock) -> Outcome:
    if not isinstance(answer, Answer) or answer.status in SUCCESS:
        return outcome_of(answer)
    name = _status(answer)
    reason = f"{name}, {answer.reason}" if name and name not in answer.reason else answer.reason
    if name == "RESOURCE_EXHAUSTED":
        return RetryAfter(answer.patience_s, reason)
    if name in _MEANINGS:
        return _MEANINGS[name](reason)
    if _REQUEST_SIZE in answer.text:
        return TooLarge(reason)
    return told_of_the_clock(outcome_of(replace(answer, reason=reason)), answer, clock, _TOLERANCE_S)
