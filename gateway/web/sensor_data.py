"""`POST /api/v1/sensor-data`: one reading, `{"readings": […]}` or a SenML pack; answered when everything is on disk.

Whoever shows a device's password (`x-api-key`, or as bearer token) sends that device's readings; whoever shows a token
of the role device, admin or owner, those of any device of its organisation, which each reading names.

202 all stored; 207 some not, each with its result; 400 none could be used (kept in quarantine all the same, if it is
known whose it is); 401; 403; 413; 415; 429 and 503 with Retry-After.
"""

import asyncio
from collections.abc import Iterable
from typing import Annotated, Any, NotRequired

from aiohttp import web
from pydantic import Field
from pydantic_core import to_json
from typing_extensions import TypedDict

from gateway.access import Access, Credential, Device
from gateway.callers import Caller
from gateway.ingest import Ingest, TooManyReadings, Verdict, worst
from gateway.login_delay import LoginDelay
from gateway.model.errors import BadInput
from gateway.model.telemetry import Envelope
from gateway.parsers.contract import MAX_READINGS
from gateway.parsers.senml import MEDIA_TYPE, SENML
from gateway.parsers.standard import load_json, named_device
from gateway.rate_limit import RateLimits
from gateway.web.authorization import (
    Authorization,
    Forbidden,
    TooManyRequests,
    Unauthorized,
    bearer_token,
    wait_after_failure,
)
from gateway.web.errors import AllRefused
from gateway.web.routes import BEARER, CLIENT_CERTIFICATE, DEVICE_KEY, JSON, Accepted, Content, Guard, Mixed, Route


class Readings(TypedDict):
    """Several readings at once."""

    readings: Annotated[list[Envelope], Field(min_length=1, max_length=MAX_READINGS)]


class Result(TypedDict):
    """What became of one reading; without a `code` nothing was wrong with it."""

    stored: bool
    code: NotRequired[str]
    message: NotRequired[str]
    hint: NotRequired[str]


class Results(TypedDict):
    """What became of all of them, in their order."""

    accepted: int
    results: list[Result]


_READING = {"device_id": "esp32-kitchen", "sensors": {"pir": {"motion_detected": True}}}
_RECORD = {"bn": "esp32-kitchen:", "n": "temperature", "u": "Cel", "v": 21.5}
_JSON_BODY = Content(JSON, Annotated[Envelope | Readings, Field(examples=[_READING, {"readings": [_READING]}])])
_SENML_BODY = Content(
    MEDIA_TYPE,
    Annotated[list[dict[str, Any]], Field(min_length=1, description="RFC 8428.", examples=[[_RECORD]])],
)


class SensorData:
    """The route and its handler."""

    def __init__(
        self, access: Access, authorization: Authorization, ingest: Ingest, limits: RateLimits, delay: LoginDelay
    ) -> None:
        self._access = access
        self._authorization = authorization
        self._ingest = ingest
        self._limits = limits
        self._delay = delay

    def routes(self) -> Iterable[Route]:
        """Return the route."""
        words = (
            "a device: its password is the key, or the bearer token, or it shows its certificate;"
            " or a token of a device, an admin or an owner"
        )
        guard = Guard(self._sender, (DEVICE_KEY, BEARER, CLIENT_CERTIFICATE), words)
        yield Route("POST", "sensor-data", self.post, guard, (404,))

    async def _sender(self, request: web.Request) -> Device | Caller:
        key = request.headers.get("x-api-key") or bearer_token(request)
        # Who shows a certificate of the site's own CA: then a password is not looked at.
        shown = None if request.transport is None else request.transport.get_extra_info("client_identity")
        credential: Credential | None
        if shown is not None:
            credential = self._access.identify(shown)
        else:
            credential = self._access.authenticate_key(key) if key else None
        if credential is None and shown is None and bearer_token(request) and "x-api-key" not in request.headers:
            return self._authorization.within_query(await self._authorization.hands_in.check(request), request)
        if credential is None:
            if key:
                await wait_after_failure(self._delay, request)
            raise Unauthorized(
                "The device's password is missing or wrong.",
                hint="Send it as x-api-key or as bearer token; neurogate device add makes one.",
            )
        if credential.device is None:
            raise NotADevice(
                "This is not a device's password.",
                hint="A hub sends its devices' readings over MQTT, or with a token of the role device.",
            )
        wait_s = self._limits.take(credential.username)
        if wait_s > 0:
            raise TooManyRequests(int(wait_s) + 1, hint="Send several readings in one request; a request counts once.")
        return credential.device

    async def post(
        self, request: web.Request, who: Device | Caller, body: Annotated[bytes, _JSON_BODY, _SENML_BODY]
    ) -> Accepted[Results] | Mixed[Results]:
        """Take in readings: one, several, or a SenML pack; answered when everything is on disk.

        What cannot be used is kept in quarantine all the same.
        """
        if request.content_type == MEDIA_TYPE:
            if isinstance(who, Device):
                pack = self._access.sent_by(who, SENML)
            else:
                pack = self._access.sent_within(who.organization_id, SENML)
            return _answer(await self._ingest.take_message(pack, body, source="http"))
        if isinstance(who, Device):
            return _answer(await self._ingest.take_document(who, body, source="http"))
        return _answer(await self._take_all(who.organization_id, body))

    async def _take_all(self, organization_id: str, body: bytes) -> list[Verdict]:
        """Take in readings of which each says whose it is."""
        try:
            document = load_json(body)
        except BadInput as error:
            await self._ingest.refuse(organization_id, body, error, source="http")
            raise
        several = isinstance(document, dict) and isinstance(document.get("readings"), list)
        readings = document["readings"] if several else [document]
        if len(readings) > MAX_READINGS:
            raise TooManyReadings(
                "too_many_readings", f"{len(readings)} readings in one request.", hint=f"Send at most {MAX_READINGS}."
            )
        # All are handed in together, and share commits.
        taken = (self._take(organization_id, one, None if several else body) for one in readings)
        return list(await asyncio.gather(*taken))

    async def _take(self, organization_id: str, reading: object, whole: bytes | None) -> Verdict:
        try:
            device_id = named_device(reading)
        except BadInput as error:
            said = to_json(reading) if whole is None else whole
            return await self._ingest.refuse(organization_id, said, error, source="http")
        device = self._access.devices.heard(organization_id, device_id)
        body = to_json({"readings": [reading]}) if whole is None else whole
        return worst(await self._ingest.take_document(device, body, source="http"))


class NotADevice(Forbidden):
    """A password, but no device's."""

    code = "not_a_device"


def _answer(verdicts: list[Verdict]) -> Accepted[Results] | Mixed[Results]:
    stored = sum(verdict.stored for verdict in verdicts)
    if len(verdicts) == 1 and not stored:
        only = verdicts[0]
        raise BadInput(only.code, only.message, hint=only.hint)
    if not verdicts:
        raise BadInput("no_readings", "There is no reading in the list.", hint="Send at least one.")
    answer: Results = {"accepted": stored, "results": [_result(verdict) for verdict in verdicts]}
    if not stored:
        nothing = BadInput(
            "no_reading_usable", "None of the readings could be used; they are in quarantine.", hint="See results."
        )
        raise AllRefused(nothing, {**answer})
    clean = all(verdict.stored and not verdict.code for verdict in verdicts)
    return Accepted(answer) if clean else Mixed(answer)


def _result(verdict: Verdict) -> Result:
    result: Result = {"stored": verdict.stored}
    if verdict.code:
        result["code"] = verdict.code
    if verdict.message:
        result["message"] = verdict.message
    if verdict.hint:
        result["hint"] = verdict.hint
    return result
