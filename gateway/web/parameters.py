"""Types of query parameters: how a text is read, and what the document says of it."""

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from gateway.parsers.timestamp import number_ms, text_ms

_BUCKET = re.compile(r"([1-9][0-9]{0,4})([smhd])")
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_NUMBER = r"[0-9]{1,15}(\.[0-9]{1,9})?"
_DATE_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}.+"


def _wrong(what: str, hint: str) -> PydanticCustomError:
    return PydanticCustomError("parameter", "{what}", {"what": what, "hint": hint})


def _time_ms(text: str) -> int:
    ms = number_ms(float(text)) if re.fullmatch(_NUMBER, text) else text_ms(text)
    if ms is None:
        hint = "Use RFC 3339, as 2026-11-20T12:00:00Z (write + as %2B), or unix seconds or milliseconds."
        raise _wrong("not a time", hint)
    return ms


def _length_ms(text: str) -> int:
    found = _BUCKET.fullmatch(text)
    if found is None:
        raise _wrong("not a length of time", "For example 30s, 5m, 1h or 1d.")
    return int(found[1]) * _UNIT_MS[found[2]]


def _number(pattern: str, words: str) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(pattern, text):
            raise _wrong(words, "Leave it out, or correct it.")
        return int(text)

    return read


def _schema(**schema: str | list[str]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string"} | schema)


TimeMs = Annotated[
    int,
    PlainValidator(_time_ms),
    _schema(
        pattern=f"^({_NUMBER}|{_DATE_TIME})$",
        description="RFC 3339 (UTC where it names no zone), unix seconds or milliseconds.",
        examples=["2026-11-20T12:00:00Z", "1795176000"],
    ),
]
"""A moment, in unix milliseconds."""

LengthMs = Annotated[
    int,
    PlainValidator(_length_ms),
    _schema(pattern=f"^{_BUCKET.pattern}$", description="For example `30s`, `5m`, `1h`, `1d`.", examples=["5m"]),
]
"""A length of time, in milliseconds."""

Above0 = Annotated[
    int,
    PlainValidator(_number("[1-9][0-9]{0,8}", "not a number above 0")),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 999_999_999}),
]
"""A whole number above 0."""

RowNumber = Annotated[
    int,
    PlainValidator(_number("[0-9]{1,18}", "not a number")),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 10**18 - 1}),
]
"""A number of a row: whole, 0 or above, as large as SQLite can hold."""
