"""Send a body to an HTTP receiver, signed: one attempt, and what its answer means.

The very bytes that are sent are signed: by Standard Webhooks 1.0 with every secret there is, so that a receiver may
change its own when it likes, and for existing receivers with the newest in `X-Webhook-Signature`.
Connections go only where egress allows, redirects are not followed, and of an answer only 2 KB are read, to say why it
refused.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from io import BytesIO
from types import MappingProxyType
from typing import Self

import aiohttp
from pydantic import HttpUrl
from yarl import URL

from cloud_sync.contract import (
    AuthFailed,
    Gone,
    NotConnected,
    Ok,
    Outcome,
    Rejected,
    RetryAfter,
    TooLarge,
    WrongAddress,
)
from cloud_sync.egress import Egress
from cloud_sync.integrations.http.guarded_connector import NotAllowed, guarded_connector
from cloud_sync.signing import body_hmac, standard_webhooks
from gateway import __version__
from gateway.clock import Clock
from gateway.config.masking import TOKEN_CHARACTERS

_SUCCESS = range(200, 300)
_MEANINGS: Mapping[int, Callable[[str], Outcome]] = {
    401: AuthFailed,
    403: AuthFailed,
    404: WrongAddress,
    405: WrongAddress,
    408: NotConnected,
    410: Gone,
    413: TooLarge,
}
_PATIENCE_ASKED = (429, 503)
_LONGEST_PATIENCE_S = 86_400.0

_JSON: Mapping[str, str] = MappingProxyType({"content-type": "application/json"})
_NONE: Mapping[str, str] = MappingProxyType({})

_KEEP_ALIVE_S = 4.0  # Node closes idle connections after 5 s; a request sent in that moment would fail
_REQUESTS_AT_ONCE = 10  # readings go out one batch at a time, for their order; this bounds whoever else sends
_ANSWER_BYTES = 2048
_REASON_CHARACTERS = 200


@dataclass(slots=True, frozen=True)
class Options:
    """What a receiver answers to OPTIONS."""

    status: int
    methods: frozenset[str]
    """What it says that it takes; empty when it does not say."""
    date_ms: int | None
    """Its clock; None when it does not say."""


class SignedPost:
    """See the module's own words. An async context manager: connections are kept while it is entered."""

    def __init__(
        self,
        url: str,
        secrets: Sequence[str],
        clock: Clock,
        egress: Egress,
        *,
        timeout_s: float,
        method: str = "POST",
        headers: Mapping[str, str] = _JSON,
        private_headers: Mapping[str, str] = _NONE,
    ) -> None:
        """`secrets` are as `parse_secret` takes them, the newest first; without one nothing is signed.

        What stands in `private_headers` is shown to nobody, like a secret.
        """
        self._url = URL(url, encoded=True)
        self._secrets = list(secrets)
        self._clock = clock
        self._egress = egress
        self._timeout_s = timeout_s
        self._method = method
        self._headers = {**headers, **private_headers}
        self._private = _private_parts(self._url, self._secrets, private_headers)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the session; connections are made when there is something to send."""
        self._session = aiohttp.ClientSession(
            connector=guarded_connector(
                self._egress, self._url.raw_host or "", keepalive_s=_KEEP_ALIVE_S, connections=_REQUESTS_AT_ONCE
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            headers={"user-agent": f"neurogate/{__version__}", "accept-encoding": "identity"},
            auto_decompress=False,  # few bytes could become very many
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()

    async def send(self, message_id: str, body: bytes) -> Outcome:
        """Send it once and classify the answer. The id is the receiver's key against repetitions."""
        assert self._session is not None, "send() belongs inside `async with`"
        headers = {**self._headers, **self._signed(message_id, body)}
        try:
            # A BytesIO is written piece by piece; about large bytes objects aiohttp warns.
            async with self._session.request(
                self._method, self._url, data=BytesIO(body), headers=headers, allow_redirects=False
            ) as answer:
                if answer.status in _SUCCESS:
                    return Ok()
                return self._classify(answer, await self._reason(answer))
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            return self._failure(error, self._timeout_s)

    async def ask_options(self, timeout_s: float) -> Options | NotConnected | WrongAddress:
        """Ask what the receiver takes at the address (RFC 9110, 9.3.7): with our identity, without a body."""
        assert self._session is not None, "ask_options() belongs inside `async with`"
        patience_s = min(timeout_s, self._timeout_s)
        try:
            async with self._session.options(
                self._url,
                headers=self._headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=patience_s),
            ) as answer:
                allow = answer.headers.get("allow", "") + "," + answer.headers.get("access-control-allow-methods", "")
                methods = frozenset(method.strip().upper() for method in allow.split(",") if method.strip())
                return Options(answer.status, methods, _date_ms(answer.headers))
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            return self._failure(error, patience_s)

    def _failure(self, error: Exception, timeout_s: float) -> NotConnected | WrongAddress:
        match error:
            case TimeoutError():
                return NotConnected(f"no answer within {timeout_s:g} s")
            case aiohttp.ClientConnectorError(os_error=NotAllowed() as forbidden):
                return WrongAddress(f"{forbidden.strerror}; to allow it, see egress.policy and egress.allow")
            case aiohttp.ClientConnectorError():
                return NotConnected(_in_words(error), sent=False)
            case _:
                return NotConnected(_in_words(error))

    def _signed(self, message_id: str, body: bytes) -> dict[str, str]:
        timestamp = self._clock.now_ms() // 1000
        headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
        if self._secrets:
            keys = map(standard_webhooks.parse_secret, self._secrets)
            signatures = (standard_webhooks.sign(key, message_id, timestamp, body) for key in keys)
            headers["webhook-signature"] = " ".join(signatures)
            headers[body_hmac.HEADER] = body_hmac.sign(self._secrets[0], body)
        return headers

    def _classify(self, answer: aiohttp.ClientResponse, reason: str) -> Outcome:
        if answer.status in _PATIENCE_ASKED:
            return RetryAfter(_patience_s(answer.headers, self._clock), reason)
        if answer.status in _MEANINGS:
            return _MEANINGS[answer.status](reason)
        match answer.status // 100:
            case 3:
                return WrongAddress(f"{reason}; redirects are not followed: set the address it leads to")
            case 4:
                return Rejected(reason)
            case _:
                return NotConnected(reason)

    async def _reason(self, answer: aiohttp.ClientResponse) -> str:
        """Return the status with the beginning of what the receiver said: one line, nothing private."""
        try:
            text = (await answer.content.read(_ANSWER_BYTES)).decode(errors="replace")
        except (aiohttp.ClientError, OSError):  # the status says enough
            text = ""
        if "content-encoding" in answer.headers:  # although we asked for none
            text = ""
        if any(part in text for part in self._private):
            text = "(its answer repeats a secret and is withheld)"
        words = "".join(character if character.isprintable() else " " for character in text)
        return f"HTTP {answer.status} {words[:_REASON_CHARACTERS].strip()}".rstrip()


def without_credentials(url: HttpUrl) -> HttpUrl:
    """Return the URL. Raises ValueError when it contains credentials."""
    if url.username or url.password:
        raise ValueError("The URL contains credentials. Use `secret`: receivers check the signature.")
    return url


def _private_parts(url: URL, secrets: Sequence[str], headers: Mapping[str, str]) -> list[str]:
    tokens = [part for part in url.parts if len(part) >= TOKEN_CHARACTERS]
    tokens += url.query.values()
    for secret in secrets:
        tokens += [secret, secret.removeprefix("whsec_")]
    for value in headers.values():
        tokens += [value.strip(), value.rpartition(" ")[2]]  # what follows a word such as Bearer
    return [token for token in tokens if token]


def _patience_s(headers: Mapping[str, str], clock: Clock) -> float | None:
    """Read a Retry-After header, seconds or a date (RFC 9110, 10.2.3); None when it says nothing usable.

    A date is taken by the clock of the other side, which its answer tells: ours may be years off.
    """
    retry_after = headers.get("retry-after", "")
    if retry_after.isascii() and retry_after.isdigit():
        seconds = float(retry_after)
    else:
        try:
            until_s = parsedate_to_datetime(retry_after).timestamp()
            if (answered := headers.get("date")) is not None:
                seconds = until_s - parsedate_to_datetime(answered).timestamp()
            elif clock.is_synced():
                seconds = until_s - clock.now_ms() / 1000
            else:
                return None
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), _LONGEST_PATIENCE_S)


def _date_ms(headers: Mapping[str, str]) -> int | None:
    try:
        return round(parsedate_to_datetime(headers.get("date", "")).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def _in_words(error: Exception) -> str:
    """Say what went wrong without the URL: aiohttp's words often have it, and its path may be a secret."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            words = f"the name {error.host} cannot be resolved"
        case aiohttp.ClientConnectorCertificateError():
            words = f"the certificate of {error.host} is not accepted: {error.certificate_error}"
        case aiohttp.ClientConnectorError():
            words = f"cannot connect to {error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
        case aiohttp.ServerDisconnectedError():
            words = "the connection ended before an answer"
        case aiohttp.ClientResponseError():
            words = "the answer is not HTTP"
        case OSError():
            words = f"the connection broke: {error.strerror or type(error).__name__}"
        case _:
            words = f"the request failed: {type(error).__name__}"
    return words
