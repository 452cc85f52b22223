"""Where the broker keeps what is a device's: its own topics, and those of routes that name it."""

from gateway.model.topics import KeptTopics, kept_topics
from gateway.operations.site import Site


async def topics_of_device(site: Site, organization_id: str, device_id: str) -> KeptTopics:
    """Return the device's own topics, and those of routes that name it: by its id, or a registered hardware id."""
    if not site.settings.ingest.routes:
        return kept_topics(organization_id, device_id)
    from gateway.parsers.routes import ParserRoutes  # noqa: PLC0415 - few sites have routes, and parsers take their time

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
