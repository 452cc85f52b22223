"""Devices, and who of them may come in. A change holds, everywhere, when the operation returns."""

import logging
from contextlib import suppress
from dataclasses import dataclass

from pydantic import JsonValue

from gateway.model.errors import NotFound, StoreFailed
from gateway.model.status import DeviceActivity
from gateway.model.topics import KeptTopics, telemetry_topics
from gateway.operations.kept_topics import topics_of_device
from gateway.operations.site import Site
from gateway.storage import device_changes
from gateway.storage.credentials import Credentials
from gateway.storage.device_changes import get_device, page_of_devices
from gateway.storage.device_metadata import change_metadata
from gateway.storage.mqtt_store import end_retained
from gateway.storage.state import DeviceCredential, DeviceRow, State, device_username

logger = logging.getLogger(__name__)

OVERLAP_MS = 24 * 3600 * 1000
"""How long an old password stays good if nothing else is said."""


@dataclass(slots=True, frozen=True)
class DeviceDetails:
    """All that is known of one device."""

    device: DeviceRow
    topics: list[str]
    """Where it publishes its readings, the usual one first."""
    last_reading_ms: int | None
    """When its newest reading was received (unix ms); None when none is stored."""
    activity: DeviceActivity | None
    """None when no gateway runs."""


async def list_devices(site: Site) -> list[DeviceRow]:
    """Return every device."""
    state = await up_to_date_state(site)
    return await state.devices()


async def page_devices(
    site: Site, *, organization_id: str | None, status: str | None, after: tuple[str, str], limit: int
) -> list[DeviceRow]:
    """Return devices of an organisation (None: of all), in the order of (organisation, id), behind one of these."""
    return await page_of_devices(await up_to_date_state(site), organization_id, status=status, after=after, limit=limit)


async def show_device(site: Site, *, organization_id: str, device_id: str) -> DeviceDetails:
    """Return all that is known of one device. Raises NotFound."""
    key = (organization_id, device_id)
    device = await get_device(await up_to_date_state(site), *key)
    activity = None if site.live is None else site.live.activity(*key)
    topics = list(telemetry_topics(*key))
    return DeviceDetails(device, topics, await _last_reading_ms(site, activity, *key), activity)


async def _last_reading_ms(
    site: Site, activity: DeviceActivity | None, organization_id: str, device_id: str
) -> int | None:
    if activity is not None and activity.readings:
        return activity.last_seen_ms
    try:
        log = await site.log()
    except NotFound:
        return None
    return await log.last_received_ms(organization_id, device_id)


async def add_device(
    site: Site,
    *,
    organization_id: str,
    device_id: str,
    metadata: dict[str, JsonValue],
    hardware_ids: tuple[str, ...] = (),
    serial_number: str = "",
    name: str = "",
) -> DeviceCredential:
    """Register a device; it may connect at once. Raises BadInput or AlreadyExists."""
    state = await site.state()
    credential = await state.add_device(
        organization_id,
        device_id,
        metadata,
        hardware_ids=hardware_ids,
        serial_number=serial_number,
        name=name,
        by=site.actor,
    )
    await take_effect(site)
    return credential


async def set_metadata(
    site: Site, *, organization_id: str, device_id: str, metadata: dict[str, JsonValue]
) -> DeviceRow:
    """Change the metadata that goes out with a device's later readings; `None` takes a key away.

    A device that is unknown is registered, without access. Raises BadInput.
    """
    device = await change_metadata(await site.state(), organization_id, device_id, metadata, by=site.actor)
    await take_effect(site)
    return device


async def update_device(
    site: Site, *, organization_id: str, device_id: str, changes: dict[str, JsonValue]
) -> DeviceRow:
    """Change what is named of `name`, `serial_number`, `hardware_ids`, `metadata` and `status`.

    Raises NotFound, BadInput, AlreadyExists and Conflict; see `device_changes`.
    """
    state = await up_to_date_state(site)
    device = await device_changes.update_device(state, organization_id, device_id, changes, by=site.actor)
    await take_effect(site)
    return device


async def issue_credential(
    site: Site, *, organization_id: str, device_id: str, overlap_ms: int = OVERLAP_MS
) -> DeviceCredential:
    """Give a device a password, and access with it if it had none; an old one stays good for so long.

    Raises NotFound, and AlreadyExists when an active one is called the same.
    """
    device = await get_device(await up_to_date_state(site), organization_id, device_id)
    if device.status == "active":
        return await rotate_device(site, organization_id=organization_id, device_id=device_id, overlap_ms=overlap_ms)
    return await add_device(site, organization_id=organization_id, device_id=device_id, metadata=device.metadata)


async def transfer_device(
    site: Site, *, organization_id: str, device_id: str, to: str
) -> tuple[DeviceRow, DeviceCredential | None]:
    """Move a device to another organisation; return it with its new credential, None for one that had none.

    Its sessions are closed and what was retained under its topics is gone when this returns; its readings stay where
    they are. Raises NotFound, BadInput and AlreadyExists.
    """
    state = await up_to_date_state(site)
    topics = await topics_of_device(site, organization_id, device_id)
    moved = await device_changes.transfer_device(state, organization_id, device_id, to, by=site.actor)
    if site.live is not None:  # first: what still came for the old organisation would discover it there again
        await site.live.apply_integrations()
    await take_effect(site)
    try:
        await _end_retained(site, topics)
    except StoreFailed as error:  # it has moved all the same, and its password must be shown
        logger.warning("what was retained of a device that has moved may come back: %s", error)
    return moved


async def _end_retained(site: Site, topics: KeptTopics) -> None:
    if site.live is not None:
        await site.live.end_retained(topics)
        return
    with suppress(NotFound):
        await end_retained(await site.writable_log(), topics)


async def rotate_device(
    site: Site, *, organization_id: str, device_id: str, overlap_ms: int = OVERLAP_MS
) -> DeviceCredential:
    """Give a device a new password; the old one is good for so long, and 0 closes its sessions. Raises NotFound."""
    credentials = Credentials(await site.state())
    username = device_username(organization_id, device_id)
    try:
        password = await credentials.rotate(username, overlap_ms, by=site.actor)
    except NotFound:
        raise NotFound(
            f"There is no active device {device_id} in {organization_id}.",
            hint="neurogate device list shows what there is.",
        ) from None
    await take_effect(site)
    return DeviceCredential(organization_id, device_id, username, password)


async def revoke_device(site: Site, *, organization_id: str, device_id: str) -> None:
    """Take a device's access away and close its sessions; its readings stay. Raises NotFound."""
    state = await up_to_date_state(site)
    await state.revoke_device(organization_id, device_id, by=site.actor)
    await take_effect(site)


async def take_effect(site: Site) -> None:
    """Let the credentials take effect; whoever has lost access is gone when this returns."""
    if site.live is not None:
        await site.live.apply_access()


async def up_to_date_state(site: Site) -> State:
    """Return the state, with what a running gateway has still to write down, if the disk takes it."""
    if site.live is not None:
        with suppress(StoreFailed):  # the gateway tries again, and says so; what is there can be shown all the same
            await site.live.write_down_access()
    return await site.state()
