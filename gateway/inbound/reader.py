"""What a message from elsewhere is to us: by which parser it is read, and in whose name.

The organisation is the integration's, whatever a message says. What names another one's device, in a topic of our own
form, is quarantined: it would be mixed with a device of the same name. So is, where the connection is one device's,
what another one says there: it may lead to a broker of the organisation that had the device before. It does not: read
payloads (parsers), or store.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from cloud_sync.contract import Hearing, Incoming
from gateway.access import Access, Routed
from gateway.inbound.echoes import without_echoes
from gateway.model.errors import BadInput
from gateway.model.topics import addressed_device, is_name, is_of_devices, is_telemetry, matches
from gateway.parsers.contract import Found, Reply
from gateway.parsers.routes import STANDARD, parser_named

LONGEST_TOPIC = 1_000
"""It is kept with what is quarantined, and logged."""


@dataclass(slots=True, frozen=True)
class Read:
    """How one message is read."""

    routed: Routed
    problem: BadInput | None
    """Why it is not read at all, but quarantined."""
    reply: Reply | None
    """What its sender waits for, when it is on disk."""


class Reader:
    """See the module's own words."""

    def __init__(self, access: Access, organization_id: str, hearing: Hearing, unasked: Callable[[str], None]) -> None:
        """`unasked` hears the topic of a message that none of the filters matches."""
        self._unasked = unasked
        self._access = access
        self._organization_id = organization_id
        self._topics = tuple(name for one in hearing.topics for name in _names_of(one))
        self._parser = parser_named(hearing.parser, hearing.mapping)
        self._device_id = hearing.device_id
        self._speaks_for_others = hearing.speaks_for_others

    def read(self, message: Incoming, ours: str) -> Read | None:
        """Return how a message is read; None when it is none that is to be read.

        Readings whose ids begin with `ours` are left out: we have forwarded them, and they have come back.
        """
        topic, parser = message.topic, self._parser
        if not any(matches(topic, one) for one in self._topics):
            self._unasked(topic)
            return None
        if parser.ignores(topic) or not parser.reads(topic):
            return None
        if self._names_its_device(topic) and not is_telemetry(topic):
            return None
        others = without_echoes(parser, message, ours)
        if others is None:
            return None
        try:
            return Read(replace(self._routed(topic), parser=others), _too_large(message), parser.reply(topic))
        except BadInput as error:  # nobody is answered in the name of somebody else's hub
            return Read(self._access.sent_within(self._organization_id, parser), error, None)

    def _routed(self, topic: str) -> Routed:
        """Return who may speak by a message. Raises BadInput when nobody may."""
        if len(topic) > LONGEST_TOPIC:
            words = f"The topic has {len(topic):,} characters."
            raise BadInput("topic_too_long", words, hint=f"At most {LONGEST_TOPIC} are taken.")
        anybody = self._access.sent_within(self._organization_id, self._parser)
        if self._names_its_device(topic):
            return self._alone(self._addressed(topic))
        if self._device_id is None:
            return anybody
        itself, speaker = self._alone(self._device_id), self._parser.speaker(topic)
        if speaker is None:
            return itself
        itself.device_of(Found({}, speaker))
        return anybody if self._speaks_for_others else itself

    def _names_its_device(self, topic: str) -> bool:
        """Whether the topic is of our own form, and what it carries is that device's."""
        return self._parser is STANDARD and is_of_devices(topic)

    def _addressed(self, topic: str) -> str:
        device_id = addressed_device(self._organization_id, topic)
        if device_id is None:
            words = f"{topic[:200]!r} is no topic of a device of {self._organization_id}, whose integration this is."
            hint = "Give the integration to that organisation, or correct the topic."
            raise BadInput("foreign_topic", words, hint=hint)
        if self._device_id not in {None, device_id}:
            words = f"{topic[:200]!r} is {device_id}'s, and this is the connection of {self._device_id}."
            hint = "Leave deviceId out where several devices speak, or correct the topics."
            raise BadInput("foreign_topic", words, hint=hint)
        return device_id

    def _alone(self, device_id: str) -> Routed:
        if not is_name(device_id):
            hint = "Correct the integration's deviceId."
            raise BadInput("invalid_device_id", f"{device_id[:100]!r} cannot be a device's id.", hint=hint)
        return self._access.sent_by(self._access.devices.heard(self._organization_id, device_id), self._parser)


def _too_large(message: Incoming) -> BadInput | None:
    if not message.cut_bytes:
        return None
    words = f"The message has {message.cut_bytes:,} bytes, more than are taken, and was not kept."
    return BadInput("payload_too_large", words, hint="Send less at a time.")


def _names_of(topic_filter: str) -> tuple[str, ...]:
    """Return what the topics of its messages match: also what is behind the sign of a subscription of its own kind.

    Such are shared ones (MQTT 5, 4.8.2), EMQX's `$queue`, and those that only one may have, its `$exclusive`.
    """
    match topic_filter.split("/"):
        case ["$share", _, *heard] | ["$queue" | "$exclusive", *heard]:
            return topic_filter, "/".join(heard)
        case _:
            return (topic_filter,)
