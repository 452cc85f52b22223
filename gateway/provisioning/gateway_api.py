"""The gateway over its HTTP API, from a machine that has no neurogate installed: standard library only."""

import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from gateway.model.errors import NeurogateError, error_from_document
from gateway.provisioning.credential import Credential, from_document
from gateway.provisioning.errors import FlashFailed

_TIMEOUT_S = 10
_MOST_BYTES = 1_000_000


class GatewayApi:
    """A gateway at a URL, with a token that may change things. `ca` is its certificate authority (PEM) for https."""

    def __init__(self, url: str, token: str, ca: str = "") -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise FlashFailed(f"{url} is no URL of a gateway.", hint="For example: --gateway http://gateway.local:8080")
        self._url = url.rstrip("/")
        self.host = parts.hostname
        self.http_port = parts.port if parts.scheme == "http" and parts.port else 8080
        self._token = token
        context = ssl.create_default_context(cadata=ca or None)
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), _NoRedirect(), urllib.request.ProxyHandler({})
        )

    def register(self, device_id: str, metadata: dict[str, str]) -> Credential:
        """Register a device. Raises AlreadyExists and FlashFailed."""
        return self._credential(self._ask("devices", {"device_id": device_id, "metadata": metadata}), device_id)

    def renew(self, device_id: str) -> Credential:
        """Give a device a new password. Raises NotFound and FlashFailed."""
        return self._credential(self._ask(f"devices/{urllib.parse.quote(device_id)}/credentials", {}), device_id)

    def newest_reading(self, device_id: str) -> dict[str, Any] | None:
        """Return the reading that came in last. Raises FlashFailed."""
        query = urllib.parse.urlencode({"device_id": device_id, "limit": 1})
        readings = self._ask(f"readings?{query}")["readings"]
        return dict(readings[0]) if readings else None

    def _credential(self, answer: dict[str, Any], device_id: str) -> Credential:
        try:
            return from_document({"device_id": device_id} | dict(answer.get("credential") or answer))
        except (KeyError, TypeError, ValueError, StopIteration):
            raise FlashFailed(
                f"{self._url} answered, but not with a credential.", hint="Are both of the same release?"
            ) from None

    def _ask(self, path: str, document: dict[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - http or https, see above
            f"{self._url}/api/v1/{path}",
            None if document is None else json.dumps(document).encode(),
            {"authorization": f"Bearer {self._token}", "content-type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as answer:
                return dict(json.loads(answer.read(_MOST_BYTES)))
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise FlashFailed(
                f"No gateway answers at {self._url}: {reason}.",
                hint="Does it run, is the address right, and are both in the same network? Or use --offline FILE.",
            ) from None

    def _refused(self, error: urllib.error.HTTPError) -> NeurogateError:
        try:
            return error_from_document(json.loads(error.read(_MOST_BYTES)))
        except (KeyError, TypeError, ValueError):
            return FlashFailed(f"{self._url} answered {error.code}.", hint="Is it the gateway's address and port?")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token goes to the gateway that was named and nowhere else."""

    def redirect_request(self, *_: Any) -> None:  # noqa: ANN401
        return None
