"""Which readings of a message we have forwarded ourselves: stored again, they would go round for ever.

A reading in our own shape says so by its `id`; what else it tells of our readings, such as what it was worked out from,
is its own affair. In another shape, which a template has made, an id of ours may stand anywhere in what a reading is
made of; where it stands beside all of them, it is the whole message's.
"""

from dataclasses import replace

from pydantic_core import to_json

from cloud_sync.contract import Incoming
from gateway.model.errors import BadInput
from gateway.parsers.contract import Found, Parser


def without_echoes(parser: Parser, message: Incoming, ours: str) -> Parser | None:
    """Return what reads the other readings of a message, None when there are none; ids of ours begin with `ours`."""
    if f'"{ours}'.encode() not in message.payload:
        return parser
    try:
        found = list(parser.parse(message.payload, message.topic))
    except BadInput:
        return None  # by a template, then: it holds no reading
    except Exception:  # noqa: BLE001 - a defect of ours: whoever stores it deals with it
        return parser
    others = [one for one in found if not _is_echo(one, ours)]
    stands_beside = len(others) == len(found) and any(one.payload is None for one in found)
    if not others or stands_beside:
        return None
    return replace(parser, parse=lambda *_: others)


def _is_echo(found: Found, ours: str) -> bool:
    if found.payload is None:
        piece = found.fields if found.piece is None else found.piece
        return f'"{ours}'.encode() in to_json(piece)
    name = found.fields.get("id")
    return isinstance(name, str) and name.startswith(ours)
