"""What is stored of a device, removed for good: whether somebody is at home is personal data."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from gateway.model.topics import KeptTopics, kept_topics
from gateway.operations.site import Site
from gateway.parsers.routes import ParserRoutes
from gateway.storage.erase import Erased, erase


async def erase_device(site: Site, *, organization_id: str, device_id: str) -> AsyncGenerator[Erased, None]:
    """Erase its readings, dead letters, quarantined input and kept MQTT messages, and yield how far it is.

    Readings that a destination has not got yet are never sent. Whoever goes away ends it after the step under way.
    Raises NotFound when there is no log.
    """
    topics = await _kept_topics(site, organization_id, device_id)
    if site.live is not None:
        await site.live.forget_messages(topics)
    async with aclosing(erase(await site.writable_log(), organization_id, device_id, topics)) as steps:
        async for so_far in steps:
            yield so_far


async def _kept_topics(site: Site, organization_id: str, device_id: str) -> KeptTopics:
    """Return the device's own topics, and those of routes that name it: by its id, or a registered hardware id."""
    routes = ParserRoutes.of(site.settings)
    filters = routes.filters(organization_id)
    if not filters:
        return kept_topics(organization_id, device_id)
    devices = [one for one in await (await site.state()).devices() if one.organization_id == organization_id]
    ids = {name: one.device_id for one in devices if one.status == "active" for name in one.hardware_ids}

    def name_it(topic: str) -> bool:
        named = routes.named(organization_id, topic)
        return named is not None and ids.get(named, named) == device_id

    return kept_topics(organization_id, device_id, name_it, filters)
