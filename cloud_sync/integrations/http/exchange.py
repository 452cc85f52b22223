"""Requests to one server, and what its answers mean.

Connections go only where egress allows, redirects are not followed, and of an answer only 2 KB are read, to say why it
refused: one line, without anything that was named as private.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from io import BytesIO
from types import MappingProxyType
from typing import Self

import aiohttp
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
from cloud_sync.integrations.http.line import DIRECT, Line
from gateway import __version__
from gateway.clock import Clock

SUCCESS = range(200, 300)
_MEANINGS: Mapping[int, Callable[[str], Outcome]] = {
    401: AuthFailed,
    403: AuthFailed,
    404: WrongAddress,
    405: WrongAddress,
    407: WrongAddress,  # of a proxy, for what is not TLS
    408: NotConnected,
    410: Gone,
    413: TooLarge,
}
_BY_FIRST_DIGIT: Mapping[int, Callable[[str], Outcome]] = {
    2: lambda _: Ok(),
    3: lambda reason: WrongAddress(f"{reason}; redirects are not followed: set the address it leads to"),
    4: Rejected,
}
_PATIENCE_ASKED = (429, 503)
_LONGEST_PATIENCE_S = 86_400.0

_NONE: Mapping[str, str] = MappingProxyType({})

_KEEP_ALIVE_S = 4.0  # Node closes idle connections after 5 s; a request sent in that moment would fail
_REQUESTS_AT_ONCE = 10  # readings go out one batch at a time, for their order; this bounds whoever else sends
_ANSWER_BYTES = 2048
_REASON_CHARACTERS = 200


@dataclass(slots=True, frozen=True)
class Answer:
    """What a server has answered."""

    status: int
    headers: Mapping[str, str]
    """Whatever the case of their names."""
    text: str
    """The beginning of the body, as it came; it may repeat a secret."""
    reason: str
    """The status with the beginning of the body: one line, nothing private."""
    patience_s: float | None
    """What Retry-After asks for."""

    @property
    def date_ms(self) -> int | None:
        """The server's clock; None when it does not say."""
        try:
            return round(parsedate_to_datetime(self.headers.get("date", "")).timestamp() * 1000)
        except (ValueError, OverflowError):
            return None


class Exchange:
    """See the module's own words. An async context manager: connections are kept while it is entered."""

    def __init__(
        self, host: str, clock: Clock, egress: Egress, *, timeout_s: float, private: Sequence[str], line: Line = DIRECT
    ) -> None:
        """`private` are texts of which no answer may be repeated."""
        self._host = host
        self._clock = clock
        self._egress = egress
        self._timeout_s = timeout_s
        self._private = [part for part in private if part]
        self._line = line
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the session; connections are made when there is something to send."""
        self._session = aiohttp.ClientSession(
            connector=guarded_connector(
                self._egress,
                self._line.connects_to or self._host,
                keepalive_s=_KEEP_ALIVE_S,
                connections=_REQUESTS_AT_ONCE,
                tls=self._line.tls(),
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

    async def ask(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] = _NONE,
        body: bytes | None = None,
        timeout_s: float | None = None,
        reads_success: bool = False,
    ) -> Answer | NotConnected | WrongAddress:
        """Send one request. Raises nothing for what the other side does.

        The body of a success is not waited for, unless `reads_success`.
        """
        assert self._session is not None, "ask() belongs inside `async with`"
        if self._line.proxy is not None and self._egress.certainly_forbids(self._host):
            return _forbidden(NotAllowed(self._host))  # else the address is the proxy's, and that was not asked for
        patience_s = min(timeout_s or self._timeout_s, self._timeout_s)
        try:
            async with self._session.request(
                method,
                url,
                # A BytesIO is written piece by piece; about large bytes objects aiohttp warns.
                data=None if body is None else BytesIO(body),
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=patience_s),
                proxy=self._line.proxy,
                proxy_headers=self._line.proxy_headers,
            ) as answer:
                text = await _beginning(answer) if reads_success or answer.status not in SUCCESS else ""
                reason = self._reason(answer, text)
                return Answer(answer.status, answer.headers, text, reason, _patience_s(answer.headers, self._clock))
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            return failure_of(error, patience_s)

    def _reason(self, answer: aiohttp.ClientResponse, text: str) -> str:
        """Return the status with the beginning of what the server said: one line, nothing private."""
        if "content-encoding" in answer.headers:  # although we asked for none
            text = ""
        if any(part in text for part in self._private):
            text = "(its answer repeats a secret and is withheld)"
        words = "".join(character if character.isprintable() else " " for character in text)
        return f"HTTP {answer.status} {words[:_REASON_CHARACTERS].strip()}".rstrip()


def outcome_of(answer: Answer | NotConnected | WrongAddress) -> Outcome:
    """Classify an answer by its status."""
    match answer:
        case NotConnected() | WrongAddress():
            return answer
        case Answer(status=status) if status in _PATIENCE_ASKED:
            return RetryAfter(answer.patience_s, answer.reason)
    return _MEANINGS.get(answer.status, _BY_FIRST_DIGIT.get(answer.status // 100, NotConnected))(answer.reason)


async def _beginning(answer: aiohttp.ClientResponse) -> str:
    try:
        return (await answer.content.read(_ANSWER_BYTES)).decode(errors="replace")
    except (aiohttp.ClientError, OSError):  # the status says enough
        return ""


def failure_of(error: Exception, timeout_s: float) -> NotConnected | WrongAddress:
    """Say what it means that no connection was there, or none was left."""
    match error:
        case TimeoutError():
            return NotConnected(f"no answer within {timeout_s:g} s")
        case aiohttp.ClientHttpProxyError(status=407):
            return WrongAddress("the proxy does not accept who we are (HTTP 407): set proxy_credentials")
        case aiohttp.ClientConnectorError(os_error=NotAllowed() as forbidden):
            return _forbidden(forbidden)
        case aiohttp.ClientConnectorError():
            return NotConnected(_in_words(error), sent=False)
        case _:
            return NotConnected(_in_words(error))


def _forbidden(error: NotAllowed) -> WrongAddress:
    return WrongAddress(f"{error.strerror}; to allow it, see egress.policy and egress.allow")


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


def _in_words(error: Exception) -> str:
    """Say what went wrong without the URL: aiohttp's words often have it, and its path may be a secret."""
    match error:
        case aiohttp.ClientHttpProxyError():
            words = f"the proxy answers HTTP {error.status} {error.message}".rstrip()
        case aiohttp.ClientProxyConnectionError():
            words = (
                f"cannot connect to the proxy {error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
            )
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
