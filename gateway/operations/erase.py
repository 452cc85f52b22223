"""What is stored of a device, removed for good: whether somebody is at home is personal data."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from gateway.operations.activity import note_change
from gateway.operations.kept_topics import topics_of_device
from gateway.operations.site import Site
from gateway.storage.commands import Commands
from gateway.storage.erase import Erased, erase
from gateway.storage.notification_log import NotificationLog


async def erase_device(site: Site, *, organization_id: str, device_id: str) -> AsyncGenerator[Erased, None]:
    """Erase its readings, dead letters, quarantined input, MQTT messages, commands and notifications; yield how far.

    Readings that a destination has not got yet are never sent. Whoever goes away ends it after the step under way.
    Raises NotFound when there is no log.
    """
    log = await site.writable_log()
    await note_change(site, organization_id, "device.erase", device_id)
    state = await site.state()
    await Commands(state).forget(organization_id, device_id)
    await NotificationLog(state, site.settings.notifications).erase(organization_id, device_id)
    await state.empty_wal()
    topics = await topics_of_device(site, organization_id, device_id)
    if site.live is not None:
        await site.live.forget_messages(topics)
    async with aclosing(erase(log, organization_id, device_id, topics)) as steps:
        async for so_far in steps:
            yield so_far
