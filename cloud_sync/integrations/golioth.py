"""Stream readings to Golioth, by CoAP over DTLS: the only way there is for devices.

A message is a JSON array of readings, at most 1,024 bytes, to `/.s/{path}`; Golioth has it when it answers. A reading
that is larger by itself goes out in blocks. In the mode `gateway` this gateway is one device there, and the readings
say themselves whose they are. In the mode `per_device` each is sent as its own device, with that one's key.

In a pipeline, `batch` makes a message of each reading, and `extract-timestamp` takes its time from the key `time`: of
those that Golioth takes for one (`t`, `ts`, `time`, `timestamp`) no other stands at the top of a reading, and what a
sensor calls so stands further below.

Sources: https://docs.golioth.io/reference/device-api/device-connectivity (20 requests/s, 1,024 bytes),
https://docs.golioth.io/data-routing/transformers/extract-timestamp, RFC 7252 and RFC 8516 (codes).
"""

import asyncio
from collections.abc import Callable
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, field_validator, model_validator
from yarl import URL

from cloud_sync.contract import (
    AuthFailed,
    Batch,
    Forwards,
    Integration,
    IntegrationConfig,
    Name,
    NotConnected,
    Ok,
    Outcome,
    Rejected,
    RetryAfter,
    Tests,
    TooLarge,
    WrongAddress,
)
from cloud_sync.egress import Egress
from cloud_sync.integrations.coap.dtls_psk import INSTALL, NOT_INSTALLED, KeyRefused, KeyUnanswered, Psk
from cloud_sync.integrations.coap.message import JSON, code_text
from cloud_sync.integrations.coap.session import BLOCK_BYTES, CoapSession, Response
from cloud_sync.integrations.coap.udp_route import UdpRoute
from cloud_sync.integrations.http.exchange import SUCCESS, Exchange
from cloud_sync.integrations.http.guarded_connector import NotAllowed
from cloud_sync.integrations.http.part_sender import PartSender
from cloud_sync.integrations.http.reach import addresses_of
from cloud_sync.payload.in_parts import Frame, Key, Part, in_parts, parts_of
from cloud_sync.payload.readings_batch import as_json
from gateway.clock import Clock
from gateway.model.finding import Finding, broken, fine, warning
from gateway.model.reading import StoredReading, wire_reading
from gateway.model.secret import Secret
from gateway.model.selection import Selection

_LEAST_S = 1 / 20
"""Between two requests of one device."""
_MAX_BYTES = BLOCK_BYTES << 10
_REFUSED_FOR_MS = 5 * 60_000
"""So long a device's key that was refused is not tried again."""
_TRIED_AT_ONCE = 5
_PATIENCE_S = 10.0


class DeviceKey(BaseModel):
    """A device's identity at Golioth."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    psk_id: str = Field(min_length=1, max_length=128, description="The PSK-ID.")
    psk: Secret = Field(description="The pre-shared key.")


class Golioth(Integration, Forwards, Tests):
    """Stream readings to Golioth, by CoAP over DTLS."""

    type = "golioth"

    class Config(IntegrationConfig):
        """Settings of Golioth."""

        model_config = ConfigDict(hide_input_in_errors=True)

        leads_by: ClassVar[tuple[str, ...]] = ("host", "port", "base_url")

        project_id: str | None = Field(
            None, min_length=1, max_length=100, description="The project's id: what PSK-IDs end with, behind the @."
        )
        api_key: Secret | None = Field(
            None, description="Of the project, for its management API. So far only a test asks that."
        )
        base_url: HttpUrl = Field(HttpUrl("https://api.golioth.io/v1"), description="Of the management API.")
        mode: Literal["gateway", "per_device"] = Field(
            "gateway",
            description="`gateway`: this gateway is one device there. `per_device`: each sends with its own key.",
        )
        psk_id: str | None = Field(
            None, min_length=1, max_length=128, description="The gateway's PSK-ID, as Golioth shows it: `name@project`."
        )
        psk: Secret | None = Field(None, description="Its pre-shared key.")
        device_keys: dict[Name, DeviceKey] = Field(
            {},
            description="In the mode `per_device`: `psk_id` and `psk` by device id here; of the one organisation that "
            "`organizations` names. Readings of others are left out.",
        )
        path: str = Field(
            "readings",
            pattern=r"^[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*$",
            max_length=200,
            description="Where in the stream: `/.s/{path}`.",
        )
        host: str = Field("coap.golioth.io", min_length=1, max_length=253, description="Golioth's CoAP gateway.")
        port: int = Field(5684, ge=1, le=65_535, description="Its UDP port.")
        webhook_secret: Secret | None = Field(
            None,
            description="What a pipeline's webhook shows in `x-api-key` when it hands in data at `golioth-webhook`; at "
            "least 16 characters.",
        )
        webhook_gateways: tuple[Name, ...] = Field(
            (),
            description="Devices of the project, by Golioth's ids, whose data may be of others: gateways, such as "
            "another neurogate. Any other speaks for itself.",
        )
        rate_limit_per_minute: int = Field(
            1_200,
            ge=0,
            description="Requests per minute; 0 lifts the limit. A device has 20 a second at most.",
        )
        batch_max_readings: int = Field(300, ge=1, le=5_000, description="Readings in one batch of requests at most.")

        @field_validator("webhook_secret")
        @classmethod
        def _cannot_be_guessed(cls, secret: Secret | None) -> Secret | None:
            if secret is not None and not _MIN_SECRET <= len(secret.get_secret_value()) <= _MAX_SECRET:
                raise ValueError(f"it has {_MIN_SECRET} to {_MAX_SECRET} characters.")
            return secret

        @field_validator("psk")
        @classmethod
        def _is_a_key(cls, psk: Secret | None) -> Secret | None:
            return None if psk is None else _checked_key(psk)

        @model_validator(mode="after")
        def _says_who_sends(self) -> Self:
            if (self.psk_id is None) != (self.psk is None):
                raise ValueError("set psk_id and psk, both or neither.")
            if self.mode == "gateway" and self.device_keys:
                raise ValueError('device_keys are for mode = "per_device".')
            if self.device_keys:
                self.refuse_several_organizations("device_keys are")
            if self.webhook_secret is not None:
                self.refuse_bringing_for_several("what comes by webhook_secret")
            if self.mode == "per_device" and self.psk is not None:
                raise ValueError("in the mode per_device the keys stand in device_keys: leave out psk_id and psk.")
            if not self.takes_readings and self.webhook_secret is None and self.api_key is None:
                raise ValueError("nothing is said of how to send: set psk_id and psk, or mode and device_keys.")
            for psk_id in filter(None, (self.psk_id, *(key.psk_id for key in self.device_keys.values()))):
                at = psk_id.rpartition("@")[2]
                if self.project_id is not None and "@" in psk_id and at != self.project_id:
                    raise ValueError(f"a PSK-ID is of the project {at[:100]}, and project_id says another.")
            return self

        @property
        def takes_readings(self) -> bool:
            """Whether anything is said of how to send."""
            return self.psk is not None or bool(self.device_keys)

        @property
        def selection(self) -> Selection:
            """Which readings it wants: with keys for some devices, those."""
            of_all = super().selection
            if self.mode == "gateway" or self.devices:
                return of_all
            return Selection(tuple(self.device_keys), of_all.organizations, of_all.sensors)

        def keys(self) -> dict[str, Psk]:
            """Return who sends, by device; under no name this gateway."""
            if self.mode == "gateway":
                return {} if self.psk is None else {"": Psk(self.psk_id or "", self.psk.get_secret_value())}
            return {name: Psk(key.psk_id, key.psk.get_secret_value()) for name, key in self.device_keys.items()}

    def __init__(self, config: Config, clock: Clock, egress: Egress) -> None:
        super().__init__(config, clock, egress)
        self._config = config
        self._route = UdpRoute(config.host, config.port, egress)
        self._sessions = {name: self._session(psk) for name, psk in config.keys().items()}
        self._parts = PartSender(clock, per_minute=config.rate_limit_per_minute, max_bytes=_MAX_BYTES)
        self._refused: dict[str, int] = {}
        """Devices whose key was refused, and when."""

    @classmethod
    def lacks(cls, config: IntegrationConfig) -> str:
        """Say what has to be installed first; data comes in without it."""
        return f"{NOT_INSTALLED}. {INSTALL}" if NOT_INSTALLED and config.takes_readings else ""

    async def __aexit__(self, *exc: object) -> None:
        """End the sessions."""
        for session in self._sessions.values():
            session.close()

    def encode(self, batch: Batch) -> bytes:
        """Return the messages, each a JSON array."""

        def item(reading: StoredReading) -> bytes:
            return as_json(wire_reading(reading, gateway_id=batch.gateway_id, log_uuid=batch.log_uuid))

        return in_parts(batch, self._key_of(), item, Frame(b"[", b"]", BLOCK_BYTES, len(batch.readings)))

    async def send(self, batch: Batch, body: bytes) -> Outcome:
        """Stream what Golioth does not have yet, and classify the answer."""
        return await self._parts.send(parts_of(batch, body, self._key_of()), self._stream)

    async def check(self) -> list[Finding]:
        """Shake hands as each of the first few devices, and ask the management API for the project."""
        if NOT_INSTALLED and self._sessions:
            return [broken(f"{NOT_INSTALLED}.", INSTALL)]
        found: list[Finding] = []
        if self._sessions:
            reached = await addresses_of(self._config.host, self._config.port, self.egress)
            found = reached.findings
            if reached.allowed:
                names = list(self._sessions)[:_TRIED_AT_ONCE]
                found += await asyncio.gather(*(self._try(name, len(reached.allowed)) for name in names))
                if len(self._sessions) > len(names):
                    words = f"The keys of {len(self._sessions) - len(names)} more devices are not tried."
                    found.append(fine(words))
        if any(finding.level == "broken" for finding in found):
            return found
        return [*found, *await self._check_project()]

    def _session(self, psk: Psk, *, tries: int = 1) -> CoapSession:
        return CoapSession(self._route, psk, timeout_s=self._config.timeout_s / tries, least_s=_LEAST_S)

    def _key_of(self) -> Callable[[StoredReading], Key]:
        is_one = self._config.mode == "gateway"
        return lambda reading: ("",) if is_one else (reading.device_id,)

    async def _stream(self, part: Part) -> Outcome:
        (name,) = part.key
        session = self._sessions.get(name)
        if session is None:
            return Rejected(f"nothing in device_keys is for the device {name}", part.rows, is_certain=True)
        now_ms = self.clock.monotonic_ms()
        if name and now_ms - self._refused.get(name, now_ms - _REFUSED_FOR_MS) < _REFUSED_FOR_MS:
            return Rejected(f"Golioth does not take the key of the device {name}", part.rows)
        outcome = await self._outcome(session, part)
        if name and isinstance(outcome, AuthFailed):  # which holds up no other device
            self._refused[name] = now_ms
            return Rejected(f"device {name}: {outcome.reason}", part.rows)
        return outcome

    async def _outcome(self, session: CoapSession, part: Part) -> Outcome:
        is_open = False
        try:
            await session.open()
            is_open = True
            answer = await session.post(f".s/{self._config.path}", JSON, part.body)
        except KeyRefused:
            return AuthFailed(_WRONG_KEY)
        except (OSError, UnicodeError) as error:
            return self._failure(error, is_open=is_open)
        return _meaning(answer, session.psk.key)

    def _failure(self, error: Exception, *, is_open: bool) -> NotConnected | WrongAddress:
        where = f"{self._config.host}, UDP port {self._config.port},"
        match error:
            case NotAllowed():
                return WrongAddress(f"{error.strerror}; to allow it, see egress.policy and egress.allow")
            case KeyUnanswered():
                return NotConnected(f"{where} {_SILENT}", sent=False)
            case TimeoutError() if is_open:
                return NotConnected(f"{where} has not answered within {self._config.timeout_s:g} s")
            case TimeoutError():
                return NotConnected(f"{where} does not answer", sent=False)
            case OSError():
                return NotConnected(f"{where} {error.strerror or type(error).__name__}", sent=is_open)
            case _:
                return NotConnected("the host is no name", sent=False)

    async def _try(self, name: str, addresses: int) -> Finding:
        """Shake hands, in a session of its own: nothing is sent in it."""
        session = self._session(self._config.keys()[name], tries=addresses)
        whose = f"the device {name}" if name else "this gateway"
        where = f"{self._config.host}, UDP port {self._config.port},"
        try:
            for left in range(addresses - 1, -1, -1):
                try:
                    await session.open()
                    break
                except OSError as error:
                    if not left or isinstance(error, KeyUnanswered):
                        raise
        except KeyRefused:
            return broken(f"Golioth does not take the key of {whose}: {_WRONG_KEY}.", "Compare psk_id and psk.")
        except KeyUnanswered:
            hint = "Compare psk_id and psk. If they are right, its answer was lost: test again."
            return broken(f"Golioth does not take the key of {whose}: it {_SILENT}.", hint)
        except TimeoutError:
            hint = "Does a firewall let UDP out to that port? Many let only TCP pass."
            return broken(f"{where} does not answer.", hint)
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            return broken(f"{where} cannot be reached ({why}).", "See the network, `host` and `port`.")
        finally:
            session.close()
        return fine(f"Golioth takes the key of {whose}.")

    async def _check_project(self) -> list[Finding]:
        config = self._config
        if config.api_key is None or config.project_id is None:
            return []
        key, base = config.api_key.get_secret_value(), URL(str(config.base_url))
        timeout_s = min(_PATIENCE_S, config.timeout_s)
        exchange = Exchange(base.raw_host or "", self.clock, self.egress, timeout_s=timeout_s, private=[key])
        async with exchange:
            answer = await exchange.ask("GET", base / "projects" / config.project_id, headers={"x-api-key": key})
        if isinstance(answer, NotConnected | WrongAddress):
            return [broken(f"The management API does not answer: {answer.reason}.", "See base_url, and the network.")]
        if answer.status in SUCCESS:
            return [fine("The management API takes the API key.")]
        if answer.status in (401, 403):
            return [broken("The management API does not take the API key.", "Make another one in the project.")]
        words = f"The management API answers in an unexpected way: {answer.reason}."
        return [warning(words, "Are base_url and project_id right?")]


_MIN_SECRET, _MAX_SECRET = 16, 255
_MAX_KEY = 128
_WRONG_KEY = "the server refuses, or is silent each time: psk_id or psk is not what Golioth has for this device"
_SILENT = (
    "answers, and is silent when it is shown the key: its answer is lost, or psk_id or psk is not what Golioth has"
)


def _checked_key(psk: Secret) -> Secret:
    if not 0 < len(psk.get_secret_value().encode()) <= _MAX_KEY:
        raise ValueError(f"a pre-shared key has 1 to {_MAX_KEY} bytes.")
    return psk


# What Golioth says

_BY_CODE: dict[str, Callable[[str], Outcome]] = {
    "4.01": AuthFailed,
    "4.03": AuthFailed,
    "4.04": WrongAddress,
    "4.05": WrongAddress,
    "4.08": NotConnected,  # blocks of a request are missing: it is sent again from the first
    "4.13": TooLarge,
}
_BY_CLASS: dict[str, Callable[[str], Outcome]] = {"2": lambda _: Ok(), "4": Rejected}
_PATIENCE_ASKED = ("4.29", "5.03")


def _meaning(answer: Response, private: str) -> Outcome:
    code = code_text(answer.code)
    words = "(its answer repeats a secret and is withheld)" if private in answer.text else answer.text
    reason = f"CoAP {code} {words}".rstrip()
    if code in _PATIENCE_ASKED:
        return RetryAfter(answer.max_age_s, reason)
    if code in _BY_CODE:
        return _BY_CODE[code](reason)
    return _BY_CLASS.get(code[0], NotConnected)(reason)
