"""Send a body to an HTTP receiver, signed: one attempt, and what its answer means.

The very bytes that are sent are signed: by Standard Webhooks 1.0 with every secret there is, so that a receiver may
change its own when it likes, and for existing receivers with the newest in `X-Webhook-Signature`.
Connections go only where egress allows, redirects are not followed, and of an answer only 2 KB are read, to say why it
refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from pydantic import HttpUrl
from yarl import URL

from cloud_sync.contract import NotConnected, Outcome, WrongAddress
from cloud_sync.egress import Egress
from cloud_sync.integrations.http.exchange import Answer, Exchange, outcome_of
from cloud_sync.integrations.http.line import DIRECT, Line
from cloud_sync.signing import body_hmac, standard_webhooks
from gateway.clock import Clock
from gateway.config.masking import TOKEN_CHARACTERS

_JSON: Mapping[str, str] = MappingProxyType({"content-type": "application/json"})
_NONE: Mapping[str, str] = MappingProxyType({})


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
        line: Line = DIRECT,
    ) -> None:
        """`secrets` are as `parse_secret` takes them, the newest first; without one nothing is signed.

        What stands in `private_headers` is shown to nobody, like a secret.
        """
        self._url = URL(url, encoded=True)
        self._secrets = list(secrets)
        self._clock = clock
        self.line = line
        """The way to the receiver."""
        self._method = method
        self._headers = {**headers, **private_headers}
        private = _private_parts(self._url, self._secrets, private_headers)
        self._exchange = Exchange(
            self._url.raw_host or "", clock, egress, timeout_s=timeout_s, private=private, line=line
        )

    async def __aenter__(self) -> Self:
        """Open the session; connections are made when there is something to send."""
        await self._exchange.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the session."""
        await self._exchange.__aexit__(*exc)

    async def send(self, message_id: str, body: bytes) -> Outcome:
        """Send it once and classify the answer. The id is the receiver's key against repetitions."""
        headers = {**self._headers, **self._signed(message_id, body)}
        return outcome_of(await self._exchange.ask(self._method, self._url, headers=headers, body=body))

    async def ask_options(self, timeout_s: float) -> Options | NotConnected | WrongAddress:
        """Ask what the receiver takes at the address (RFC 9110, 9.3.7): with our identity, without a body."""
        answer = await self._exchange.ask("OPTIONS", self._url, headers=self._headers, timeout_s=timeout_s)
        if not isinstance(answer, Answer):
            return answer
        allow = answer.headers.get("allow", "") + "," + answer.headers.get("access-control-allow-methods", "")
        methods = frozenset(method.strip().upper() for method in allow.split(",") if method.strip())
        return Options(answer.status, methods, answer.date_ms)

    def _signed(self, message_id: str, body: bytes) -> dict[str, str]:
        timestamp = self._clock.now_ms() // 1000
        headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
        if self._secrets:
            keys = map(standard_webhooks.parse_secret, self._secrets)
            signatures = (standard_webhooks.sign(key, message_id, timestamp, body) for key in keys)
            headers["webhook-signature"] = " ".join(signatures)
            headers[body_hmac.HEADER] = body_hmac.sign(self._secrets[0], body)
        return headers


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
