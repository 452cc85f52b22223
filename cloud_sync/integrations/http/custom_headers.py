"""Headers that a configuration adds to requests. Their values may be secrets: no error repeats one."""

import re
from collections.abc import Mapping

from pydantic_core import from_json

from cloud_sync.signing import body_hmac
from gateway.model.secret import Secret

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2
_VALUE = re.compile(r"[\t\x20-\x7e]*")  # 5.5, without what depends on a character set
_OURS = frozenset(
    (
        *("host", "content-length", "content-type", "content-encoding", "transfer-encoding", "accept-encoding"),
        *("connection", "keep-alive", "expect", "te", "trailer", "upgrade", "proxy-connection"),
        *("webhook-id", "webhook-timestamp", "webhook-signature", body_hmac.HEADER.lower()),
    )
)
"""What says where a request goes, where it ends, what it holds and who has signed it."""


def parsed_headers(value: object) -> object:
    """Take the documented form, too, a JSON object in a text. Raises ValueError."""
    if isinstance(value, str):
        try:
            value = from_json(value)
        except ValueError:
            raise ValueError('they are not JSON; write them as {"X-Name": "value"}.') from None
    if not isinstance(value, Mapping):
        raise ValueError('they must be a table, like {"X-Name": "value"}.')  # noqa: TRY004 - pydantic takes no other
    for name, text in value.items():
        if not isinstance(text, str | Secret):
            raise ValueError(f"the value of {name} must be a string.")  # noqa: TRY004 - nor here
    return value


def check_headers(headers: Mapping[str, Secret]) -> None:
    """Raise ValueError for a header that cannot be sent, or that would override one of ours."""
    for name, value in headers.items():
        check_name(name)
        check_value(name, value)
    if len({name.lower() for name in headers}) < len(headers):
        raise ValueError("a header is there twice; upper and lower case make no difference.")


def check_name(name: str) -> None:
    """Raise ValueError unless a configuration may set this header."""
    if not _NAME.fullmatch(name):
        start = _NAME.match(name)
        after = start[0] if start else ""  # no more of it: the value may stand there, in the wrong place
        raise ValueError(f'a name of a header is empty, or has a wrong character after "{after}".')
    if name.lower() in _OURS:
        raise ValueError(f"{name} is set by the gateway itself.")


def check_value(name: str, value: Secret) -> None:
    """Raise ValueError unless it can be the value of a header."""
    if not _VALUE.fullmatch(value.get_secret_value()):
        raise ValueError(f"the value of {name} holds a line break or another character that no header can have.")
