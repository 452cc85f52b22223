"""What must not be shown: values of keys that look secret, and credentials inside addresses.

It errs on the side of hiding. It is the second fence: secrets are SecretStr wherever their type is known.
"""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import SecretBytes, SecretStr

MASK = "********"

TOKEN_CHARACTERS = 16
"""A part of a path this long may be a token."""

_WORDS = (
    "password|passwd|passphrase|secret|token|authorization|credential|cookie|psk|connection[-_ ]?string"
    "|(?:api|access|account|client|ota|private|shared)[-_ ]?key"
)
_KEY = re.compile(_WORDS, re.IGNORECASE)
_ASSIGNMENT = re.compile(
    rf"""(?P<key>(?:{_WORDS})[\w-]*["']?\s*[=:]\s*["']?)(?P<value>(?:(?:bearer|basic)\s+)?[^\s"'&,;}})]+)""",
    re.IGNORECASE,
)
_ITEM_NAME = re.compile(r"\[[^\]]*\]")  # the name of an integration says nothing about its values
_QUERY_VALUE = re.compile(r"(?P<key>(?:^|&)[^=&]*=)[^&]+")
_USER_INFO = re.compile(r"://[^\s/?#\"']*@")


def looks_secret(key: str) -> bool:
    """Tell whether a value under this name had better stay hidden (`api_key`, `apiKey`, `X-Auth-Token`)."""
    return _KEY.search(_ITEM_NAME.sub("", key)) is not None


def without_credentials(text: str) -> str:
    """Remove `user:password@` from URLs in the text, and mask what follows `token=` and the like."""
    return _ASSIGNMENT.sub(rf"\g<key>{MASK}", _USER_INFO.sub("://", text))


def without_tokens(url: str) -> str:
    """Mask what may be a token in an address: values of its query, and long parts of its path, as Slack has them."""
    base, mark, query = url.partition("?")
    scheme, slashes, rest = base.partition("://")
    parts = [MASK if index and len(part) >= TOKEN_CHARACTERS else part for index, part in enumerate(rest.split("/"))]
    return scheme + slashes + "/".join(parts) + mark + _QUERY_VALUE.sub(rf"\g<key>{MASK}", query)


def masked(key: str, value: Any) -> Any:  # noqa: ANN401 - a setting or a log's extra may be anything
    """Return the value as JSON may hold it, without the secrets in it."""
    if value in (None, (), []):  # nothing is no secret
        return value
    if looks_secret(key) or isinstance(value, SecretStr | SecretBytes):
        return MASK
    if isinstance(value, Mapping):
        return {str(name): masked(str(name), inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [masked(key, inner) for inner in value]
    return value if isinstance(value, bool | int | float) else without_credentials(str(value))
