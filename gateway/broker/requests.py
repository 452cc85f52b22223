"""What a client says beside PUBLISH: what it subscribes to, what it has of what it was sent, that it lives, or goes.

It does not: frame packets (connection), or take what is published (publishing).
"""

from typing import Protocol

from gateway.access import Credential
from gateway.broker import packets
from gateway.broker.delivery import Delivery
from gateway.broker.packets import MalformedPacket, PacketType
from gateway.broker.publishing import Publishing
from gateway.broker.sessions import Session
from gateway.broker.sys_topics import SYS
from gateway.config import MqttSettings
from gateway.model.errors import StoreFailed


class Asker(Protocol):
    """The connection of whoever asks."""

    def send(self, data: bytes) -> None:
        """Send a packet."""
        ...

    def answer(self, answer: bytes, error: StoreFailed | None) -> None:
        """Answer what had to be on disk first."""
        ...

    def say_goodbye(self) -> None:
        """Hear that its client goes."""
        ...


class Requests:
    """See the module's own words; of one client that is in."""

    def __init__(
        self,
        settings: MqttSettings,
        delivery: Delivery,
        asker: Asker,
        credential: Credential,
        session: Session,
        publishing: Publishing,
    ) -> None:
        self._delivery = delivery
        self._asker = asker
        self._namespace = credential.namespace
        self._session = session
        self._publishing = publishing
        self._filters_at_most = settings.max_filters_per_subscribe
        if credential.is_home_assistant:  # it names 500 of its devices in one
            self._filters_at_most = max(self._filters_at_most, settings.max_home_assistant_subscriptions)

    def take(self, first: int, body: bytes) -> None:
        """Take in a packet that is no PUBLISH. Raises MalformedPacket, and BeyondLimit."""
        kind, flags = first >> 4, first & 0x0F
        if kind == PacketType.PINGREQ and not flags and not body:
            self._asker.send(packets.PINGRESP)
        elif kind == PacketType.PUBREL and flags == 0x02:
            self._publishing.release(packets.packet_id(body))
        elif kind == PacketType.DISCONNECT and not flags and not body:
            self._asker.say_goodbye()
        elif kind == PacketType.SUBSCRIBE:
            self._subscribe(*packets.decode_subscribe(first, body, at_most=self._filters_at_most))
        elif kind == PacketType.UNSUBSCRIBE:
            self._unsubscribe(*packets.decode_subscribe(first, body, at_most=self._filters_at_most))
        elif kind in (PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBCOMP) and not flags:
            self._acknowledged(kind, int.from_bytes(packets.packet_id(body), "big"))
        else:
            raise MalformedPacket(f"unexpected packet type {kind} with flags {flags}")

    def _subscribe(self, packet_id: bytes, asked: list[tuple[str, int]]) -> None:
        self._delivery.subscriptions.subscribe(
            self._session,
            [(self._local_filter(name), qos) for name, qos in asked],
            lambda codes: self._asker.send(packets.encode_suback(packet_id, codes)),
            lambda error: self._asker.answer(b"", error),
        )

    def _unsubscribe(self, packet_id: bytes, asked: list[tuple[str, int]]) -> None:
        names = [self._local_filter(name) for name, _ in asked]
        self._delivery.subscriptions.unsubscribe(
            self._session, names, lambda error: self._asker.answer(packets.UNSUBACK + packet_id, error)
        )

    def _local_filter(self, name: str) -> str:
        """Return what a topic filter is behind the door."""
        return name if name.startswith(SYS) else self._namespace + name

    def _acknowledged(self, kind: int, packet_id: int) -> None:
        outbox = self._session.outbox
        if outbox is None:
            return
        if kind == PacketType.PUBACK:
            outbox.acknowledged(packet_id)
        elif kind == PacketType.PUBREC:
            outbox.received(packet_id)
        else:
            outbox.completed(packet_id)
        if self._session.replay is not None:
            self._delivery.go_on(self._session)
