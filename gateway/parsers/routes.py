"""From a topic to the parser that its owner has chosen for it, or none."""

from collections.abc import Iterable
from collections.abc import Mapping as MappingOf
from dataclasses import replace
from typing import NamedTuple, Self

from gateway.config import Settings
from gateway.config.routes import Mapping, ParserName, Route
from gateway.model.home_assistant.topics import is_for_home_assistant
from gateway.model.rights import Rights, home_assistant_rights, rights_of
from gateway.model.topics import is_of_devices, matches
from gateway.parsers.contract import Found, Parser
from gateway.parsers.custom import custom
from gateway.parsers.senml import SENML
from gateway.parsers.standard import load_json, parse_object
from gateway.parsers.vmark import VMARK


def _parse_standard(data: bytes, _topic: str) -> list[Found]:
    value = load_json(data)
    device_id = value.get("device_id") if isinstance(value, dict) else None
    if not isinstance(device_id, str):
        parse_object(value, data)  # it raises, and says what is wrong
    return [Found(value, device_id, payload=data)]


STANDARD = Parser("standard", _parse_standard)

PARSERS: MappingOf[str, Parser] = {parser.name: parser for parser in (STANDARD, SENML, VMARK)}
"""Those that need no mapping."""


def parser_of(route: Route) -> Parser:
    """Return the parser that a route asks for."""
    return parser_named(route.parser, route.mapping)


def parser_named(name: ParserName, mapping: Mapping | None) -> Parser:
    """Return the parser of that name, with a mapping where it takes one."""
    if mapping is None:
        return PARSERS[name]
    mapped = custom(mapping)
    # A hub is answered the same whatever its reports look like.
    return mapped if name == mapped.name else replace(PARSERS[name], parse=mapped.parse)


class _Bound(NamedTuple):
    organization_id: str
    topic_filter: str
    parser: Parser


class ParserRoutes:
    """The routes of a configuration, in their order."""

    def __init__(
        self,
        routes: Iterable[Route] = (),
        default_organization: str = "default",
        discovery_prefix: str = "homeassistant",
    ) -> None:
        self._discovery_prefix = discovery_prefix
        self._bound = [
            _Bound(route.organization_id or default_organization, route.topic, parser_of(route)) for route in routes
        ]

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return those of a configuration."""
        prefix = settings.home_assistant.discovery_prefix
        return cls(settings.ingest.routes, settings.gateway.organization_id, prefix)

    def parser(self, organization_id: str, topic: str) -> Parser | None:
        """Return what reads a message that a client of the organisation publishes; None when no route asks for it.

        What the gateway itself tells Home Assistant is no route's, whatever its filter matches.
        """
        if is_for_home_assistant(organization_id, topic, self._discovery_prefix):
            return None
        for bound in self._bound:
            if bound.organization_id == organization_id and matches(topic, bound.topic_filter):
                return bound.parser
        return None

    def named(self, organization_id: str, topic: str) -> str | None:
        """Return what a topic calls the device whose messages are there; None when it is no route's, or names none."""
        parser = self.parser(organization_id, topic)
        return None if parser is None else (parser.named or parser.speaker)(topic)

    def filters(self, organization_id: str) -> tuple[str, ...]:
        """Return the topics of the organisation's routes."""
        return tuple(bound.topic_filter for bound in self._bound if bound.organization_id == organization_id)

    def filters_that_name_no_device(self, organization_id: str) -> tuple[str, ...]:
        """Return those where a message may be about a device that its topic does not name."""
        mine = (one for one in self._bound if one.organization_id == organization_id and one.parser.named is None)
        return tuple(one.topic_filter for one in mine if not is_of_devices(one.topic_filter))

    def rights_of(
        self, organization_id: str | None, device_id: str | None, *, is_home_assistant: bool = False
    ) -> Rights:
        """Return the rights of a credential (rights.py), with what it may hear because of the routes.

        What it may publish there is said by `parser`, topic by topic. Whoever speaks for all devices of an organisation
        may as well be its Home Assistant.
        """
        as_home_assistant = home_assistant_rights(self._discovery_prefix, organization_id)
        if is_home_assistant:
            return as_home_assistant
        rights = rights_of(organization_id, device_id)
        if device_id is None:
            rights |= as_home_assistant
        return rights if organization_id is None else rights.and_hear(self._heard_by(organization_id, device_id))

    def _heard_by(self, organization_id: str, device_id: str | None) -> tuple[str, ...]:
        """Return the topics of the routes for a hub, and where replies are heard for whoever it is."""
        mine = [bound for bound in self._bound if bound.organization_id == organization_id]
        topics = [bound.topic_filter for bound in mine if device_id is None]
        replies = [name for bound in mine for name in bound.parser.heard_by(device_id)]
        return tuple(dict.fromkeys([*topics, *replies]))
