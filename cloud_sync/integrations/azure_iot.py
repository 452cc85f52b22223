"""Send readings to Azure IoT Hub over HTTPS, each as the device that it is from.

A request carries readings of one device, each a message of its own, in Azure's batch format and under 261,119 bytes. A
message has the reading as JSON, the reading's id as message id, and its time as creation time.

With the connection string of a policy that may connect devices (`device`, or `iothubowner`, which may everything) one
token speaks for all devices; each must be registered in the hub under its id here. With a device's connection string
the gateway is that one device, and the readings say themselves whose they are.

Sources: https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-construct (properties),
https://learn.microsoft.com/rest/api/iothub/common-error-codes, and Azure's SDKs for Node and Java (batches).
"""

import re
from base64 import b64encode
from dataclasses import dataclass, field, replace
from typing import Self
from urllib.parse import quote

from pydantic import ConfigDict, Field, field_validator, model_validator
from yarl import URL

from cloud_sync.contract import (
    AuthFailed,
    Batch,
    Forwards,
    Integration,
    NotConnected,
    Ok,
    Outcome,
    Rejected,
    RetryAfter,
    Tests,
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
from cloud_sync.signing import azure_sas
from gateway.clock import Clock
from gateway.model.finding import Finding, broken, fine, warning
from gateway.model.reading import StoredReading, rfc3339, wire_reading
from gateway.model.secret import Secret

_MAX_BYTES = 255 * 1024 - 1
_MAX_ID_CHARACTERS = 128
_API = "?api-version=2021-04-12"
_BATCH = "application/vnd.microsoft.iothub.json"
_TOLERANCE_S = 600
"""A token is good for at least so long when it is used, by our clock."""
_REMEMBERED_MS = 24 * 3600 * 1000
_ALL_POWERFUL = "iothubowner"
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")


@dataclass(slots=True, frozen=True)
class Identity:
    """What a connection string says."""

    host: str
    key: bytes = field(repr=False)
    device_id: str | None
    policy: str | None

    @property
    def resource(self) -> str:
        """What a token of it is for."""
        of_one = "" if self.device_id is None else f"/{quote(self.device_id, safe='')}"
        return f"{self.host}/devices{of_one}"


def parse_connection_string(text: str) -> Identity:
    """Read a connection string. Raises ValueError, whose message never contains the key."""
    pairs = dict(part.split("=", 1) for part in text.strip().split(";") if "=" in part)
    host, device, policy = pairs.get("HostName", ""), pairs.get("DeviceId"), pairs.get("SharedAccessKeyName")
    unknown = sorted(pairs.keys() - {"HostName", "DeviceId", "SharedAccessKeyName", "SharedAccessKey"})
    if unknown:
        raise ValueError("it has other parts than HostName, DeviceId or SharedAccessKeyName, and SharedAccessKey.")
    if not _HOST.fullmatch(host) or (device is None) == (policy is None) or "SharedAccessKey" not in pairs:
        raise ValueError(
            "it must be HostName=…;SharedAccessKeyName=…;SharedAccessKey=… (a policy's) or "
            "HostName=…;DeviceId=…;SharedAccessKey=… (a device's)."
        )
    return Identity(host, azure_sas.parse_key(pairs["SharedAccessKey"]), device, policy)


class AzureIot(Integration, Forwards, Tests):
    """Send readings to Azure IoT Hub over HTTPS, each as the device that it is from."""

    type = "azure_iot"

    class Config(HttpConfig):
        """Settings of Azure IoT Hub."""

        model_config = ConfigDict(hide_input_in_errors=True)

        connection_string: Secret = Field(
            description="From the hub's shared access policies, best of the policy `device`, which may speak for every "
            "device and nothing else; or one device's own."
        )
        hub_name: str | None = Field(None, description="Name of the hub; it must be that of the connection string.")
        endpoint: HostUrl | None = Field(
            None, description="Connect to this address instead of the hub's own, such as a private one."
        )
        rate_limit_per_minute: int = Field(
            1_000, ge=0, description="Requests per minute; 0 lifts the limit. A request carries one device's readings."
        )

        @field_validator("connection_string")
        @classmethod
        def _can_be_read(cls, connection_string: Secret) -> Secret:
            parse_connection_string(connection_string.get_secret_value())
            return connection_string

        @model_validator(mode="after")
        def _names_one_hub(self) -> Self:
            host = self.identity().host
            if self.hub_name is not None and self.hub_name.lower() not in (
                host.lower(),
                host.partition(".")[0].lower(),
            ):
                raise ValueError(f"hub_name is {self.hub_name}, and the connection string is of {host}.")
            return self

        def identity(self) -> Identity:
            """Return what the connection string says."""
            return parse_connection_string(self.connection_string.get_secret_value())

    def __init__(self, config: Config, clock: Clock, egress: Egress) -> None:
        super().__init__(config, clock, egress)
        self._config = config
        self._identity = config.identity()
        self._base = URL(f"https://{self._identity.host}" if config.endpoint is None else str(config.endpoint))
        self._line = config.line()
        key = b64encode(self._identity.key).decode()
        self._exchange = Exchange(
            self._base.raw_host or "",
            clock,
            egress,
            timeout_s=config.timeout_s,
            private=[key, "SharedAccessSignature sr="],
            line=self._line,
        )
        self._parts = PartSender(clock, per_minute=config.rate_limit_per_minute, max_bytes=_MAX_BYTES)
        identity = self._identity
        self._token = LastingToken(
            clock, lambda _, ends_s: azure_sas.token(identity.resource, identity.key, ends_s, identity.policy)
        )
        self._accepted_ms: int | None = None

    async def __aenter__(self) -> Self:
        """Open the session; connections are made when there is something to send."""
        await self._exchange.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the session."""
        await self._exchange.__aexit__(*exc)

    def encode(self, batch: Batch) -> bytes:
        """Return the requests' bodies, each a list of messages."""

        def message(reading: StoredReading) -> bytes:
            wire = wire_reading(reading, gateway_id=batch.gateway_id, log_uuid=batch.log_uuid)
            properties = {
                "iothub-contenttype": "application/json",
                "iothub-contentencoding": "utf-8",
                "iothub-app-iothub-creation-time-utc": rfc3339(reading.time_ms),
            }
            if len(wire["id"]) <= _MAX_ID_CHARACTERS:
                properties["iothub-messageid"] = wire["id"]
            body = b64encode(as_json(wire)).decode()
            return as_json({"body": body, "base64Encoded": True, "properties": properties})

        return in_parts(batch, self._sender_of, message, Frame(b"[", b"]", _MAX_BYTES, len(batch.readings)))

    async def send(self, batch: Batch, body: bytes) -> Outcome:
        """Send what the hub does not have yet, and classify the answer."""
        return await self._parts.send(parts_of(batch, body, self._sender_of), self._send_part)

    async def check(self) -> list[Finding]:
        """Ask for messages to a device: that needs our token. One that waits there is given back at once."""
        path = f"/devices/{self._identity.device_id or 'neurogate-check'}/messages/deviceBound"

        async def ask() -> Answer | NotConnected | WrongAddress:
            return await self._ask("GET", path)

        found, answer = await check_server(
            self._base, self._line, ask, self.clock, self.egress, tolerance_s=_TOLERANCE_S
        )
        if answer is None:
            return found
        if self._identity.policy == _ALL_POWERFUL:
            hint = "Make a policy with DeviceConnect only, or use the hub's own policy `device`."
            found.append(warning(f"The policy {_ALL_POWERFUL} may do everything in this hub.", hint))
        if answer.status == 200 and (etag := answer.headers.get("etag", "").strip('"')):  # noqa: PLR2004
            await self._ask("POST", f"{path}/{quote(etag, safe='')}/abandon")
        return [*found, self._meaning(answer)]

    def _sender_of(self, reading: StoredReading) -> Key:
        """Return the device of the hub that sends it."""
        return (self._identity.device_id or reading.device_id,)

    async def _send_part(self, part: Part) -> Outcome:
        (device,) = part.key
        path = f"/devices/{quote(device, safe='')}/messages/events"
        answer = await self._ask("POST", path, {"content-type": _BATCH, "iothub-to": path}, part.body)
        outcome = _outcome_of(answer, self.clock)
        if isinstance(outcome, Ok):
            self._accepted_ms = self.clock.monotonic_ms()
        elif (
            isinstance(answer, Answer) and _error_name(answer) == "DeviceNotFound" and self._identity.device_id is None
        ):
            words = f"the device {device} is not registered in the hub, or disabled there ({answer.reason})"
            return Rejected(words, part.rows, is_certain=self._others_are_accepted())
        return outcome

    def _others_are_accepted(self) -> bool:
        """Whether the hub, and what we say who we are, are right: so that an unknown device is none of their faults."""
        since = self._accepted_ms
        return since is not None and self.clock.monotonic_ms() - since < _REMEMBERED_MS

    async def _ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Answer | NotConnected | WrongAddress:
        url = URL(f"{self._base.origin()}{path}{_API}", encoded=True)
        headers = {"authorization": self._token.current(), **(headers or {})}
        patience_s = PATIENCE_S if body is None else None
        return await self._exchange.ask(method, url, headers=headers, body=body, timeout_s=patience_s)

    def _meaning(self, answer: Answer) -> Finding:
        """Say what the answer to a check means."""
        is_known = answer.status in SUCCESS
        if is_known or (_error_name(answer) == "DeviceNotFound" and self._identity.device_id is None):
            return fine("The hub accepts who we are.")
        match _outcome_of(answer, self.clock):
            case AuthFailed(reason):
                hint = "Copy connection_string again; a policy needs the permission DeviceConnect."
                return broken(f"The hub does not accept who we are: {reason}.", hint)
            case RetryAfter(_, reason):
                return warning(f"The hub asks for patience: {reason}.", "See the quotas of its tier.")
            case _ if _error_name(answer) == "DeviceNotFound":
                words = f"The hub knows no device {self._identity.device_id}, or it is disabled."
                return broken(words, "Register it in the hub, or correct connection_string.")
            case _:
                return warning(f"The hub answers in an unexpected way: {answer.reason}.", "Is the host the hub's?")


# What Azure says


_THROTTLED = {"throttlingexception", "throttlingbacklogtimeout", "iothubquotaexceeded", "serverbusy"}
_IN_BODY = re.compile(r"ErrorCode:(\w+)")
_NAMES = {"403002": "IotHubQuotaExceeded", "404001": "DeviceNotFound", "429001": "ThrottlingException"}
_NUMBER = re.compile(r"\b(403002|404001|429001)\b")


def _error_name(answer: Answer) -> str:
    """Return what went wrong by Azure's own name for it, or nothing. The daily quota, for one, is a 403."""
    if named := answer.headers.get("iothub-errorcode", ""):
        return named
    if (in_body := _IN_BODY.search(answer.text)) is not None:
        return in_body[1]
    number = _NUMBER.search(answer.text)
    return _NAMES[number[1]] if number is not None else ""


def _outcome_of(answer: Answer | NotConnected | WrongAddress, clock: Clock) -> Outcome:
    if not isinstance(answer, Answer) or answer.status in SUCCESS:
        return outcome_of(answer)
    name = _error_name(answer)
    reason = f"{name}, {answer.reason}" if name and name not in answer.reason else answer.reason
    if name.lower() in _THROTTLED:
        return RetryAfter(answer.patience_s, reason)
    return told_of_the_clock(outcome_of(replace(answer, reason=reason)), answer, clock, _TOLERANCE_S)
