"""What came in and could not be used: shown as it came, with the reason."""

from base64 import b64encode
from dataclasses import dataclass
from typing import Literal

from typing_extensions import TypedDict

from gateway.model.reading import NewQuarantine, rfc3339
from gateway.operations.site import Site
from gateway.storage.newest_first import quarantine_page


@dataclass(slots=True, frozen=True)
class QuarantinedInput:
    """One message, or the piece of one that could not be used."""

    id: int
    organization_id: str
    device_id: str | None
    """None when nobody knows whose it is."""
    source: str
    """Where it came in: an MQTT topic, `http`, or `serial` and the port."""
    code: str
    reason: str
    received_at_ms: int
    payload: str
    """What came: as text if it is UTF-8, else in base64."""
    encoding: Literal["text", "base64"]


@dataclass(slots=True, frozen=True)
class QuarantinePage:
    """One page, the newest first."""

    found: list[QuarantinedInput]
    before: int | None
    """What the next page is asked for with; None when there is none."""


class ToldQuarantine(TypedDict):
    """What there is to say of one, for a program that asks."""

    id: int
    organization_id: str
    device_id: str | None
    source: str
    code: str
    reason: str
    received_at: str
    payload: str
    encoding: Literal["text", "base64"]


async def page_quarantine(
    site: Site,
    *,
    organization_id: str | None = None,
    device_id: str | None = None,
    code: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> QuarantinePage:
    """Return what is in quarantine of an organisation (None: of all), the newest first.

    It may be less than `limit` and still not be the last page. Raises NotFound when there is no log.
    """
    log = await site.log()
    page = await quarantine_page(
        log, organization_id=organization_id, device_id=device_id, code=code, before=before, limit=limit
    )
    return QuarantinePage([_shown(row, entry) for row, entry in page.found], page.before)


def told(one: QuarantinedInput) -> ToldQuarantine:
    """Say what there is to say of one."""
    return {
        "id": one.id,
        "organization_id": one.organization_id,
        "device_id": one.device_id,
        "source": one.source,
        "code": one.code,
        "reason": one.reason,
        "received_at": rfc3339(one.received_at_ms),
        "payload": one.payload,
        "encoding": one.encoding,
    }


def _shown(row: int, entry: NewQuarantine) -> QuarantinedInput:
    encoding: Literal["text", "base64"]
    try:
        encoding, payload = "text", entry.payload.decode()
    except UnicodeDecodeError:
        encoding, payload = "base64", b64encode(entry.payload).decode()
    return QuarantinedInput(
        id=row,
        organization_id=entry.organization_id,
        device_id=entry.device_id or None,
        source=entry.source,
        code=entry.code,
        reason=entry.reason,
        received_at_ms=entry.received_at_ms,
        payload=payload,
        encoding=encoding,
    )
