"""Messages that come by other ways than a connection, in the name of an organisation.

They are dealt with as if its hub had published them: the same rights, telemetry is stored like any other, and whoever
publishes hears when all of it is on disk (P1).
"""

import asyncio

from gateway.access import Access, Credential, Publication
from gateway.broker.delivery import Delivery
from gateway.broker.names import too_long
from gateway.broker.packets import MalformedPacket, Message, check_topic
from gateway.config import MqttSettings
from gateway.ingest import Ingest, Verdict, worst
from gateway.model.errors import BadInput, StoreFailed
from gateway.model.rights import rights_of


class ForeignTopic(BadInput):
    """A topic that is not the organisation's to publish to."""

    http_status = 403


class Publisher:
    """See the module's own words."""

    def __init__(self, access: Access, ingest: Ingest, delivery: Delivery, settings: MqttSettings) -> None:
        self._access = access
        self._ingest = ingest
        self._delivery = delivery
        self._settings = settings

    async def publish(
        self, organization_id: str, topic: str, payload: bytes, qos: int, *, retain: bool
    ) -> Verdict | None:
        """Publish; returns what became of it as a reading, None when it is none, when all is on disk.

        Raises BadInput for a topic or a payload that cannot be, ForeignTopic and StoreFailed.
        """
        hub = Credential("", organization_id, None, rights_of(organization_id, None))
        topic = _checked(topic)
        if too := too_long(topic, self._settings):
            raise BadInput(
                "invalid_topic",
                f"The topic has {too}.",
                hint=f"At most {self._settings.max_topic_levels} levels and {self._settings.max_topic_bytes} bytes:"
                " mqtt.max_topic_levels and mqtt.max_topic_bytes.",
            )
        if len(payload) > self._settings.max_packet_bytes:
            raise BadInput(
                "payload_too_large",
                f"The payload has {len(payload)} bytes.",
                hint=f"At most {self._settings.max_packet_bytes}: mqtt.max_packet_bytes.",
            )
        known = self._access.publication(hub, topic)
        if known is None:
            raise ForeignTopic(
                "foreign_topic",
                f"{topic[:200]!r} is no topic of a device of {organization_id}.",
                hint=f"Publish to devices/… or org_{organization_id}/devices/…, below a device, or where a route is.",
            )
        if known.is_unheard:
            return None
        verdict = await self._stored(known, payload, topic)
        await self._hand_on(Message(hub.namespace + topic, payload, qos, retain))
        reply = None if known.routed is None else known.routed.parser.reply(topic)
        if reply is not None:
            await self._hand_on(Message(hub.namespace + reply.topic, reply.payload, qos=1, retain=False))
        return verdict

    async def _stored(self, known: Publication, payload: bytes, topic: str) -> Verdict | None:
        """Return what became of a message as a reading; None when it is none."""
        if known.routed is not None:
            return worst(await self._ingest.take_message(known.routed, payload, source=topic))
        if known.telemetry_of is None:
            return None
        try:
            return worst(await self._ingest.take_document(known.telemetry_of, payload, source=topic))
        except BadInput as error:
            return Verdict(stored=False, code=error.code, message=error.message, hint=error.hint)

    async def _hand_on(self, message: Message) -> None:
        on_disk: asyncio.Future[StoreFailed | None] = asyncio.get_running_loop().create_future()

        def done(error: StoreFailed | None) -> None:
            if not on_disk.done():
                on_disk.set_result(error)

        if self._delivery.take(message, done):
            return
        if (error := await on_disk) is not None:
            raise error


def _checked(topic: str) -> str:
    try:
        return check_topic(topic.encode())
    except (MalformedPacket, UnicodeEncodeError) as error:
        raise BadInput("invalid_topic", f"{topic[:200]!r} cannot be a topic: {error}.") from None
