"""Messages that come by other ways than a connection, in the name of an organisation.

They are dealt with as if its hub had published them: the same rights, telemetry is stored like any other, and whoever
publishes hears when all of it is on disk (P1).
"""

import asyncio
from dataclasses import replace

from gateway.access import Access, Credential, Routed
from gateway.broker.delivery import Delivery
from gateway.broker.names import too_long
from gateway.broker.packets import MalformedPacket, Message, check_topic
from gateway.config import MqttSettings
from gateway.ingest import Ingest, Verdict, worst
from gateway.model.errors import BadInput, StoreFailed
from gateway.model.rights import rights_of
from gateway.model.topics import is_telemetry


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
        routed = self._access.routed(hub, topic)
        device = self._access.sender(hub, topic) if hub.rights.may_publish(topic) else None
        if routed is None and device is None:
            raise ForeignTopic(
                "foreign_topic",
                f"{topic[:200]!r} is no topic of a device of {organization_id}.",
                hint=f"Publish to devices/… or org_{organization_id}/devices/…, below a device, or where a route is.",
            )
        if routed is not None:
            return await self._publish_routed(routed, hub, Message(topic, payload, qos, retain))
        assert device is not None
        verdict = None
        if is_telemetry(topic):
            try:
                verdict = worst(await self._ingest.take_document(device, payload, source=topic))
            except BadInput as error:
                verdict = Verdict(stored=False, code=error.code, message=error.message, hint=error.hint)
        await self._hand_on(Message(hub.namespace + topic, payload, qos, retain))
        return verdict

    async def _publish_routed(self, routed: Routed, hub: Credential, message: Message) -> Verdict | None:
        parser, topic = routed.parser, message.topic
        if parser.ignores(topic):
            return None
        verdict = None
        reply = None
        if parser.reads(topic):
            verdicts = await self._ingest.take_message(routed, message.payload, source=topic)
            verdict = worst(verdicts)
            reply = parser.reply(topic)
        await self._hand_on(replace(message, topic=hub.namespace + topic))
        if reply is not None:
            await self._hand_on(Message(hub.namespace + reply.topic, reply.payload, qos=1, retain=False))
        return verdict

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
