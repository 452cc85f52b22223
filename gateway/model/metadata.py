"""What is known of a device beside what it measures, as JSON: any values, of clean text, and not too much."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.model.errors import BadInput
from gateway.model.text import is_clean_text

METADATA_MAX_BYTES = 4_096
"""Of one device, as JSON: it is a part of every reading that goes out."""


def encode_metadata(metadata: Mapping[str, Any]) -> str:
    """Return metadata as it is stored. Raises BadInput when it is no clean text, holds no numbers, or is too large."""
    if not all(map(is_clean_text, _texts(metadata))):
        raise BadInput("invalid_metadata", "The metadata is not text.", hint="Use UTF-8 without control characters.")
    try:
        text = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise BadInput("invalid_metadata", "The metadata holds what is no number.", hint="Leave it out.") from None
    if (size := len(text.encode())) > METADATA_MAX_BYTES:
        raise BadInput(
            "metadata_too_large",
            f"The device's metadata would take {size} bytes.",
            hint=f"At most {METADATA_MAX_BYTES}; a key with the value null leaves.",
        )
    return text


def merged(metadata: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata with the keys changed that are named; None takes one away."""
    return {name: value for name, value in {**metadata, **changes}.items() if value is not None}


def _texts(value: object) -> Iterator[str]:
    """Yield every text within a JSON value, the keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, within in value.items():
            yield name
            yield from _texts(within)
    elif isinstance(value, list):
        for within in value:
            yield from _texts(within)
