"""Devices, and who of them may come in. A change holds, everywhere, when the operation returns."""

from contextlib import suppress
from dataclasses import dataclass

from pydantic import JsonValue

from gateway.model.errors import NotFound, StoreFailed
from gateway.model.status import DeviceActivity
from gateway.model.topics import telemetry_topics
from gateway.operations.site import Site
from gateway.storage.credentials import Credentials
from gateway.storage.device_metadata import change_metadata
from gateway.storage.state import DeviceCredential, DeviceRow, State, device_username

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


async def show_device(site: Site, *, organization_id: str, device_id: str) -> DeviceDetails:
    """Return all that is known of one device. Raises NotFound."""
    state = await up_to_date_state(site)
    key = (organization_id, device_id)
    for device in await state.devices():
        if (device.organization_id, device.device_id) == key:
            activity = None if site.live is None else site.live.activity(*key)
            topics = list(telemetry_topics(*key))
            return DeviceDetails(device, topics, await _last_reading_ms(site, activity, *key), activity)
    raise NotFound(
        f"There is no device {device_id} in {organization_id}.", hint="neurogate device list shows what there is."
    )


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
    metadata: dict[str, str],
    hardware_ids: tuple[str, ...] = (),
    serial_number: str = "",
) -> DeviceCredential:
    """Register a device; it may connect at once. Raises BadInput or AlreadyExists."""
    state = await site.state()
    credential = await state.add_device(
        organization_id, device_id, metadata, hardware_ids=hardware_ids, serial_number=serial_number
    )
    await take_effect(site)
    return credential


async def set_metadata(
    site: Site, *, organization_id: str, device_id: str, metadata: dict[str, JsonValue]
) -> DeviceRow:
    """Change the metadata that goes out with a device's later readings; `None` takes a key away.

    A device that is unknown is registered, without access. Raises BadInput.
    """
    device = await change_metadata(await site.state(), organization_id, device_id, metadata)
    await take_effect(site)
    return device


async def rotate_device(
    site: Site, *, organization_id: str, device_id: str, overlap_ms: int = OVERLAP_MS
) -> DeviceCredential:
    """Give a device a new password; the old one is good for so long, and 0 closes its sessions. Raises NotFound."""
    credentials = Credentials(await site.state())
    username = device_username(organization_id, device_id)
    try:
        password = await credentials.rotate(username, overlap_ms)
    except NotFound:
        raise NotFound(
            f"There is no active device {device_id} in {organization_id}.",
            hint="neurogate device list shows what there is.",
        ) from None
    await take_effect(site)
    return DeviceCredential(organization_id, device_id, username, password)


async def revoke_device(site: Site, *, organization_id: str, device_id: str) -> None:
    """Take a device's access away and close its sessions; its readings stay. Raises NotFound."""
    state = await site.state()
    await state.revoke_device(organization_id, device_id)
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
