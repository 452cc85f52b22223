"""What clients have left for the case that they vanish (MQTT 3.1.1, 3.1.2.5): published like anything else they say.

A reading among them is on disk before anybody hears it. Whether it was the client's to leave is asked when it logs in.
"""

from collections.abc import Callable

from gateway.access import Access, Credential
from gateway.broker.delivery import Delivery
from gateway.broker.packets import Message
from gateway.ingest import Ingest
from gateway.model.errors import StoreFailed


class Wills:
    """See the module's own words."""

    def __init__(self, access: Access, ingest: Ingest, delivery: Delivery) -> None:
        self._access = access
        self._ingest = ingest
        self._delivery = delivery

    def publish(self, credential: Credential, will: Message, done: Callable[[], None]) -> None:
        """Publish what a client has left; `done` is called when no more comes of it."""
        left = Message(credential.namespace + will.topic, will.payload, will.qos, will.retain)
        heir = _Heir(lambda: self._hand_on(left, done), done)
        known = self._access.publication(credential, will.topic)
        if known is None or known.is_unheard:
            done()
            return
        if known.telemetry_of is not None:
            self._ingest.take(known.telemetry_of, will.payload, heir, source=will.topic)
        elif known.routed is not None:
            self._ingest.take_routed(known.routed, will.payload, heir, source=will.topic)
        else:
            self._hand_on(left, done)
            return
        self._ingest.hurry()  # its client may be waiting to come in again

    def _hand_on(self, message: Message, done: Callable[[], None]) -> None:
        """Hand a message on that nobody is to be answered for."""
        if self._delivery.take(message, lambda _: done()):
            done()


class _Heir:
    """The owner of a telemetry will: it goes to subscribers when it is on disk, like any other reading."""

    def __init__(self, hand_on: Callable[[], None], not_stored: Callable[[], None]) -> None:
        self._hand_on = hand_on
        self._not_stored = not_stored

    def committed(self, _: int) -> None:
        """Hand it on."""
        self._hand_on()

    def failed(self, _: StoreFailed) -> None:
        """Nobody else hears it; the log has said so already."""
        self._not_stored()
