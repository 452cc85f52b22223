"""What subscriptions of the HTTP API have heard: kept once, however many want it, and read by each at its own pace.

- a message that some subscription wants is on disk before its publisher is answered (P1), like what waits for MQTT
  clients; it is written through `MqttStore`, in the same commit
- an id only grows and is never given twice
- the number and the size are capped: beyond, the oldest leave, and every callback that had not got one counts it as
  lost; when the time is known, what is too old leaves as well
- a callback's position, and the batch that is on its way, are on disk

It does not: send anything (cloud_sync/callbacks), or decide who may hear what (whoever subscribes has asked rights).
"""

import asyncio
import logging
from base64 import b64encode
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pydantic_core import from_json
from typing_extensions import TypedDict

from gateway.clock import Clock
from gateway.metrics import Metrics
from gateway.model.errors import ConfigError
from gateway.model.json_values import is_finite
from gateway.model.reading import rfc3339
from gateway.model.topics import matches
from gateway.model.wire import Json
from gateway.storage.activity_log import GATEWAY
from gateway.storage.log import Log
from gateway.storage.message_cap import Left, TrimMessages
from gateway.storage.mqtt_store import Change, MqttStore
from gateway.storage.mqtt_subscriptions import MqttSubscriptions, SubscriptionRow
from gateway.storage.state import State

logger = logging.getLogger(__name__)

_TOPICS_REMEMBERED = 10_000
_LOOKED_AT_ONCE = 100
_BYTES_AT_ONCE = 1_000_000
_KNOWN_SINCE_MS = 1_577_836_800_000  # 2020: an earlier time is that of a clock which was not set yet


class WireMessage(TypedDict):
    """A message as whoever asked for it gets it."""

    id: str
    organization_id: str
    topic: str
    payload: Json
    encoding: Literal["json", "text", "base64"]
    qos: int
    retain: bool
    received_at: str


@dataclass(slots=True, frozen=True)
class StoredMessage:
    """A message as it was published; the topic is in its organisation's names."""

    id: int
    organization_id: str
    topic: str
    payload: bytes
    qos: int
    retain: bool
    received_at_ms: int

    def on_the_wire(self, message_id: str) -> WireMessage:
        """Return it for whoever asked for it: the payload as JSON if it is that, else as text, else in base64."""
        encoding, payload = _decoded(self.payload)
        return {
            "id": message_id,
            "organization_id": self.organization_id,
            "topic": self.topic,
            "payload": payload,
            "encoding": encoding,
            "qos": self.qos,
            "retain": self.retain,
            "received_at": rfc3339(self.received_at_ms),
        }


@dataclass(slots=True)
class Position:
    """How far a callback has got."""

    acknowledged: int
    """Its receiver has everything that it wants up to here."""
    batch: "Frozen | None" = None
    """What may be on its way."""


class Frozen(NamedTuple):
    """A batch: so many messages beyond `after`, up to `until`. With fewer by now, it cannot be made again."""

    id: str
    after: int
    until: int
    messages: int


class MqttMessages:
    """See the module's own words. For the event loop's thread."""

    def __init__(
        self,
        log: Log,
        store: MqttStore,
        state: State,
        clock: Clock,
        metrics: Metrics,
        *,
        max_messages: int,
        max_bytes: int,
        max_age_s: float,
    ) -> None:
        self._log = log
        self._store = store
        self._rows = MqttSubscriptions(state)
        self._clock = clock
        self._dropped = metrics.events_dropped
        self._max_age_ms = round(max_age_s * 1000)
        self._wanted: dict[str, bool] = {}
        self._grown = asyncio.Event()
        self._given = 0
        """The highest id that was given."""
        self.newest = 0
        """The highest id that is on disk."""
        self.subscriptions: dict[str, SubscriptionRow] = {}
        self.positions: dict[str, Position] = {}
        """Of every subscription with a callback."""
        self.lost: dict[str, int] = {}
        """How many messages left before a callback got them, since the start."""
        self.changed = asyncio.Event()
        """Set when a subscription has come or gone; for whoever sends."""
        store.trim_messages = lambda: TrimMessages(max_messages, max_bytes)
        store.on_messages_left = self._note_lost

    async def open(self) -> None:
        """Take in what is on disk. Raises StoreFailed."""
        rows = await self._log.fetch(
            "SELECT subscription, position, batch_id, after, until, messages FROM mqtt_callbacks"
        )
        known = {
            name: Position(position, None if batch[0] is None else Frozen(*batch)) for name, position, *batch in rows
        }
        try:
            await self._rows.encrypt_older()
        except ConfigError as error:  # the vault's key is there and unusable: later, then
            logger.warning("addresses of callbacks are not encrypted yet: %s", error)
        for row in await self._rows.all():
            self._add(row, known.pop(row.id, None))
        self._store.later([_forget(name) for name in known])
        ids = [newest for (newest,) in await self._log.fetch("SELECT newest FROM mqtt_message_ids")]
        # A log that was lost or damaged may know less than those who have read from it.
        ids += [row.start for row in self.subscriptions.values()]
        ids += [one.batch.until if one.batch else one.acknowledged for one in self.positions.values()]
        self._given = self.newest = max(ids, default=0)

    def _add(self, row: SubscriptionRow, position: Position | None) -> None:
        self.subscriptions[row.id] = row
        self._wanted.clear()
        if row.callback_url is not None:
            self.positions[row.id] = position or Position(row.start)
        self.changed.set()

    async def subscribe(
        self, organization_id: str, topics: tuple[str, ...], callback_url: str | None, *, by: str = GATEWAY
    ) -> SubscriptionRow:
        """Subscribe an organisation to topic filters, from now on. Raises BadInput or StoreFailed."""
        row = await self._rows.add(organization_id, topics, callback_url, self.newest, by=by)
        self._add(row, None)
        return row

    async def unsubscribe(self, organization_id: str, subscription_id: str, *, by: str = GATEWAY) -> None:
        """End a subscription of an organisation. Raises NotFound or StoreFailed."""
        await self._rows.remove(organization_id, subscription_id, by=by)
        del self.subscriptions[subscription_id]
        self._wanted.clear()
        if self.positions.pop(subscription_id, None) is not None:
            self.lost.pop(subscription_id, None)
            self._store.later([_forget(subscription_id)])
        self.changed.set()

    # What is published

    def wants(self, local_topic: str) -> bool:
        """Whether any subscription wants a message on this topic behind the door."""
        if not self.subscriptions:  # nearly always: nothing is looked up, and no topic remembered
            return False
        wanted = self._wanted.get(local_topic)
        if wanted is None:
            if len(self._wanted) >= _TOPICS_REMEMBERED:
                self._wanted.clear()
            organization_id, _, topic = local_topic.partition("/")
            wanted = self._wanted[local_topic] = any(self._wanting(organization_id, topic))
        return wanted

    def _wanting(self, organization_id: str, topic: str) -> Iterable[SubscriptionRow]:
        for row in self.subscriptions.values():
            if row.organization_id == organization_id and any(matches(topic, one) for one in row.topics):
                yield row

    def keep(self, local_topic: str, payload: bytes, qos: int, *, retain: bool) -> tuple[int, Change] | None:
        """Return the id of a message, and what has to be written of it; None when nobody wants it."""
        if not self.wants(local_topic):
            return None
        organization_id, _, topic = local_topic.partition("/")
        self._given += 1
        values = (self._given, organization_id, topic, payload, qos, retain, self._clock.now_ms())
        return self._given, ("INSERT INTO mqtt_messages VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def stored(self, message_id: int) -> None:
        """Hear that a message is on disk; they become so in the order of their ids."""
        self.newest = message_id
        self._grown.set()

    def _note_lost(self, left: Iterable[Left]) -> None:
        lost = 0
        for message in left:
            for row in self._wanting(message.organization_id, message.topic):
                position = self.positions.get(row.id)
                if position is not None and position.acknowledged < message.id:
                    self.lost[row.id] = self.lost.get(row.id, 0) + 1
                    lost += 1
        if lost:
            self._dropped.labels("mqtt_callbacks", "messages_full").inc(lost)
            logger.warning(
                "messages left before a callback got them; see mqtt.messages_max_bytes", extra={"messages": lost}
            )

    @property
    def erasures(self) -> int:
        """Grows when messages may have been erased: what somebody has read before may not be there any more."""
        return self._log.erasures

    def expire(self) -> None:
        """Let go of what is too old, if it is known how old it is."""
        now_ms = self._clock.now_ms()
        if self.newest and self._clock.is_synced():
            old = "DELETE FROM mqtt_messages WHERE received_at_ms BETWEEN ? AND ?"
            self._store.later([(old, (_KNOWN_SINCE_MS, now_ms - self._max_age_ms))])

    # What is read

    async def has_missed(self, organization_id: str, after: int) -> bool:
        """Whether messages of the organisation beyond id `after` have left for want of room."""
        rows = await self._log.fetch(
            "SELECT left_until FROM mqtt_messages_kept WHERE organization_id = ?", (organization_id,)
        )
        return any(left_until > after for (left_until,) in rows)

    async def read(
        self, row: SubscriptionRow, after: int, *, until: int, limit: int, max_bytes: int = _BYTES_AT_ONCE
    ) -> tuple[list[StoredMessage], int]:
        """Return messages beyond id `after` that a subscription wants, and the id up to which it has been looked.

        At least one if there is one; no further ones beyond `limit`, or when their payloads have `max_bytes`.
        """
        found: list[StoredMessage] = []
        size = 0
        while after < until and len(found) < limit:
            looked_at = await self._page(row.organization_id, after, until)
            for message in looked_at:
                after = message.id
                if any(matches(message.topic, one) for one in row.topics):
                    found.append(message)
                    size += len(message.payload)
                    if len(found) == limit or size >= max_bytes:
                        return found, after
            if len(looked_at) < _LOOKED_AT_ONCE:
                return found, until
        return found, after

    async def _page(self, organization_id: str, after: int, until: int) -> list[StoredMessage]:
        rows = await self._log.fetch(
            """SELECT id, organization_id, topic, payload, qos, retain, received_at_ms FROM mqtt_messages
            WHERE id > ? AND id <= ? AND organization_id = ? ORDER BY id LIMIT ?""",
            (after, until, organization_id, _LOOKED_AT_ONCE),
            page=True,
        )
        return [
            StoredMessage(one, organization, topic, payload, qos, bool(retain), at)
            for one, organization, topic, payload, qos, retain, at in rows
        ]

    async def wait_beyond(self, message_id: int) -> None:
        """Return when there is a message beyond that id."""
        while self.newest <= message_id:
            self._grown.clear()
            await self._grown.wait()

    async def freeze(self, subscription_id: str, batch: Frozen) -> None:
        """Note, on disk, that a batch is on its way. Raises StoreFailed."""
        position = Position(self.positions[subscription_id].acknowledged, batch)
        await self._store.written([_note(subscription_id, position)])
        if subscription_id in self.positions:
            self.positions[subscription_id] = position

    def acknowledged(self, subscription_id: str, message_id: int) -> None:
        """Hear that a receiver has everything up to a message."""
        if subscription_id in self.positions:
            position = self.positions[subscription_id] = Position(message_id)
            self._store.later([_note(subscription_id, position)])


def _decoded(payload: bytes) -> tuple[Literal["json", "text", "base64"], Json]:
    with suppress(ValueError):
        value = from_json(payload, allow_inf_nan=False)
        if is_finite(value):
            return "json", value
    try:
        return "text", payload.decode()
    except UnicodeDecodeError:
        return "base64", b64encode(payload).decode()


def _note(subscription_id: str, position: Position) -> Change:
    values = (subscription_id, position.acknowledged, *(position.batch or (None, 0, 0, 0)))
    return ("INSERT OR REPLACE INTO mqtt_callbacks VALUES (?, ?, ?, ?, ?, ?)", values)


def _forget(subscription_id: str) -> Change:
    return ("DELETE FROM mqtt_callbacks WHERE subscription = ?", (subscription_id,))
