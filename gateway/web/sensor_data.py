"""`POST /api/v1/sensor-data`: one reading, `{"readings": […]}` or a SenML pack; answered when everything is on disk.

202 all stored; 207 some not, each with its result; 400 none could be used (kept in quarantine all the same); 401; 403;
413; 415; 429 and 503 with Retry-After.
"""

from dataclasses import asdict

from aiohttp import web

from gateway.access import Access
from gateway.ingest import Ingest, Verdict
from gateway.login_delay import LoginDelay
from gateway.parsers.senml import MEDIA_TYPE, SENML
from gateway.rate_limit import RateLimits
from gateway.web.authorization import bearer_token, wait_after_failure
from gateway.web.errors import error_response


class SensorData:
    """The route and its handler."""

    def __init__(self, access: Access, ingest: Ingest, limits: RateLimits, delay: LoginDelay) -> None:
        self._access = access
        self._ingest = ingest
        self._limits = limits
        self._delay = delay

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register the route, also under the path of the platform that existing clients use."""
        router.add_post("/api/v1/sensor-data", self.post)
        router.add_post("/functions/v1/sensor-data", self.post)

    async def post(self, request: web.Request) -> web.Response:
        """Take in readings of the device whose password comes as `x-api-key` or bearer token."""
        key = request.headers.get("x-api-key") or bearer_token(request)
        credential = self._access.authenticate_key(key) if key else None
        if credential is None:
            if key:
                await wait_after_failure(self._delay, request)
            return error_response(
                401,
                "unauthorized",
                "The device's password is missing or wrong.",
                hint="Send it as x-api-key or as bearer token; neurogate device add makes one.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if credential.device is None:
            return error_response(
                403,
                "not_a_device",
                "This is not a device's password.",
                hint="A hub sends its devices' readings over MQTT; over HTTP each device has a password of its own.",
            )
        wait_s = self._limits.take(credential.username)
        if wait_s > 0:
            return error_response(
                429,
                "rate_limited",
                "Too many requests.",
                hint="Send several readings in one request; a request counts once.",
                headers={"Retry-After": str(int(wait_s) + 1)},
            )
        if request.content_type == MEDIA_TYPE:
            pack = self._access.sent_by(credential.device, SENML)
            return _answer(await self._ingest.take_message(pack, await request.read(), source="http"))
        if request.content_type != "application/json":
            return error_response(
                415,
                "unsupported_media_type",
                "The body must be JSON.",
                hint=f"Content-Type: application/json, or {MEDIA_TYPE}",
            )
        verdicts = await self._ingest.take_document(credential.device, await request.read(), source="http")
        return _answer(verdicts)


def _answer(verdicts: list[Verdict]) -> web.Response:
    stored = sum(verdict.stored for verdict in verdicts)
    if len(verdicts) == 1 and not stored:
        only = verdicts[0]
        return error_response(400, only.code, only.message, hint=only.hint)
    if not verdicts:
        return error_response(400, "no_readings", "There is no reading in the list.", hint="Send at least one.")
    clean = all(verdict.stored and not verdict.code for verdict in verdicts)
    status = 202 if clean else 207 if stored else 400
    results = [_result(verdict) for verdict in verdicts]
    body: dict[str, object] = {"accepted": stored, "results": results}
    if not stored:
        body["error"] = {
            "code": "no_reading_usable",
            "message": "None of the readings could be used; they are in quarantine.",
            "hint": "See results.",
        }
    return web.json_response(body, status=status)


def _result(verdict: Verdict) -> dict[str, object]:
    return {name: value for name, value in asdict(verdict).items() if value != ""}
