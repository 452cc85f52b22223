"""What the MQTT broker must still know after a power cut: sessions, what waits for them, retained messages.

- changes reach the disk in the order they were handed in; those that arrive during a commit form the next one
- whoever must not promise anything before its change is on disk hears `done` then, in the same order
- what may be lost (an acknowledged message is sent once more) waits for the next commit, for a second at most
- a damaged log is exchanged, and what it did not take is written to the fresh one, where the tables have been copied

It does not: decide what is kept, or how much (the broker's bounds do).
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from gateway.model.errors import StoreFailed
from gateway.model.topics import KeptTopics
from gateway.storage.commit_thread import Statements
from gateway.storage.log import Log
from gateway.storage.message_cap import Left, TrimMessages
from gateway.storage.reclaim import read_pages
from gateway.storage.repair.damage import is_damage
from gateway.storage.space import Pages

logger = logging.getLogger(__name__)

_LATER_S = 1.0
_TRIES = 3  # a damaged log is exchanged in between
_CHANGES_PER_COMMIT = 5_000

Change = tuple[str, tuple[str | int | bytes, ...]]
"""One statement, with its parameters."""
Done = Callable[[StoreFailed | None], None]


@dataclass(slots=True, frozen=True)
class KeptMessage:
    """A message in a session's outbox."""

    position: int
    packet_id: int
    topic: str
    payload: bytes
    qos: int
    retain: bool
    queued_at_ms: int
    """0 when the clock was not right then."""
    sent: bool
    released: bool


@dataclass(slots=True)
class KeptSession:
    """A session, as it was on disk."""

    number: int
    client: str
    namespace: str
    subscriptions: dict[str, int] = field(default_factory=dict)
    received: list[int] = field(default_factory=list)
    outbox: list[KeptMessage] = field(default_factory=list)


@dataclass(slots=True)
class Kept:
    """Everything, as it was on disk."""

    sessions: dict[int, KeptSession] = field(default_factory=dict)
    """By their number; whoever left first comes first."""
    retained: list[tuple[str, bytes, int]] = field(default_factory=list)
    """(topic, payload, QoS)"""

    def read(self, db: sqlite3.Connection) -> None:
        """Read it all. What belongs to no session (an exchanged log may have lost its row) is removed."""
        for table in ("session_subscriptions", "session_received", "session_outbox"):
            db.execute(f"DELETE FROM {table} WHERE session NOT IN (SELECT id FROM mqtt_sessions)")  # noqa: S608 - ours
        for number, client, namespace in db.execute(
            "SELECT id, client, namespace FROM mqtt_sessions ORDER BY left_at_ms, id"
        ):
            self.sessions[number] = KeptSession(number, client, namespace)
        for number, name, qos in db.execute("SELECT session, filter, qos FROM session_subscriptions"):
            self.sessions[number].subscriptions[name] = qos
        for number, packet_id in db.execute("SELECT session, packet_id FROM session_received"):
            self.sessions[number].received.append(packet_id)
        for number, *columns in db.execute(
            "SELECT session, position, packet_id, topic, payload, qos, retain, queued_at_ms, sent, released"
            " FROM session_outbox ORDER BY session, position"
        ):
            position, packet_id, topic, payload, qos, retain, queued, sent, released = columns
            self.sessions[number].outbox.append(
                KeptMessage(position, packet_id, topic, payload, qos, bool(retain), queued, bool(sent), bool(released))
            )
        self.retained = db.execute("SELECT topic, payload, qos FROM retained_messages").fetchall()


# Changes


def begin_session(number: int, client: str, namespace: str) -> list[Change]:
    """Keep a new session."""
    return [("INSERT OR IGNORE INTO mqtt_sessions VALUES (?, ?, ?, 0)", (number, client, namespace))]


def leave_session(number: int, now_ms: int) -> list[Change]:
    """Note when the client of a session went."""
    return [("UPDATE mqtt_sessions SET left_at_ms = ? WHERE id = ?", (now_ms, number))]


def end_session(number: int) -> list[Change]:
    """Forget a session and all that belongs to it."""
    return [
        ("DELETE FROM mqtt_sessions WHERE id = ?", (number,)),
        ("DELETE FROM session_subscriptions WHERE session = ?", (number,)),
        ("DELETE FROM session_received WHERE session = ?", (number,)),
        ("DELETE FROM session_outbox WHERE session = ?", (number,)),
    ]


def subscribe(number: int, topic_filter: str, qos: int) -> Change:
    """Keep a subscription, or its new QoS."""
    return ("INSERT OR REPLACE INTO session_subscriptions VALUES (?, ?, ?)", (number, topic_filter, qos))


def unsubscribe(number: int, topic_filter: str) -> Change:
    """Forget a subscription."""
    return ("DELETE FROM session_subscriptions WHERE session = ? AND filter = ?", (number, topic_filter))


def take_id(number: int, packet_id: int) -> Change:
    """Note that a QoS 2 message of a client was taken."""
    return ("INSERT OR IGNORE INTO session_received VALUES (?, ?)", (number, packet_id))


def release_id(number: int, packet_id: int) -> Change:
    """Note that a QoS 2 message of a client was released."""
    return ("DELETE FROM session_received WHERE session = ? AND packet_id = ?", (number, packet_id))


def queue_message(number: int, message: KeptMessage) -> Change:
    """Keep a message for a session."""
    values = (message.position, message.packet_id, message.topic, message.payload, message.qos, message.retain)
    return (
        "INSERT INTO session_outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (number, *values, message.queued_at_ms, message.sent, message.released),
    )


def mark_sent(number: int) -> Change:
    """Note that all that waits for a session may have been sent."""
    return ("UPDATE session_outbox SET sent = 1 WHERE session = ? AND NOT sent", (number,))


def mark_released(number: int, position: int) -> Change:
    """Note that a client has received a QoS 2 message: its content is not needed any more."""
    sql = "UPDATE session_outbox SET released = 1, payload = x'' WHERE session = ? AND position = ?"
    return (sql, (number, position))


def forget_message(number: int, position: int) -> Change:
    """Forget a message of a session."""
    return ("DELETE FROM session_outbox WHERE session = ? AND position = ?", (number, position))


def retain(topic: str, payload: bytes, qos: int) -> Change:
    """Keep a topic's retained message; an empty one ends that."""
    if not payload:
        return ("DELETE FROM retained_messages WHERE topic = ?", (topic,))
    return ("INSERT OR REPLACE INTO retained_messages VALUES (?, ?, ?)", (topic, payload, qos))


async def end_retained(log: Log, topics: KeptTopics) -> None:
    """End the retained messages on these topics, while no broker runs. Raises StoreFailed."""
    kept = await log.fetch("SELECT topic FROM retained_messages", page=True)
    gone = [(topic,) for (topic,) in kept if topics.includes(topic)]
    await log.transact(Statements([("DELETE FROM retained_messages WHERE topic = ?", gone)]))


@dataclass(slots=True)
class _Batch:
    """A transaction, see `CommitThread`."""

    changes: Sequence[Change]
    trim: TrimMessages | None = None
    pages: Pages | None = None

    def write(self, db: sqlite3.Connection) -> None:
        for sql, parameters in self.changes:
            db.execute(sql, parameters)
        if self.trim is not None:
            self.trim.write(db)
        self.pages = read_pages(db)

    def rolled_back(self) -> None:
        self.pages = None
        if self.trim is not None:
            self.trim.rolled_back()


class MqttStore:
    """See the module's own words. For the event loop's thread."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._waiting: list[tuple[Sequence[Change], Done | None]] = []
        self._writing: asyncio.Task[None] | None = None
        self._due: asyncio.TimerHandle | None = None
        self._closed = False
        self.trim_messages: Callable[[], TrimMessages] | None = None
        """Makes what keeps the cap of `mqtt_messages`, as the end of each commit."""
        self.on_messages_left: Callable[[Sequence[Left]], None] = lambda _: None
        """Hears what left by that."""
        self.waiting_bytes = 0
        """Payload of the changes that wait for a commit, or are in one."""

    async def load(self) -> Kept:
        """Return what is on disk. Raises StoreFailed."""
        kept = Kept()
        await self._log.outside_transaction(kept.read)
        return kept

    def write(self, changes: Iterable[Change], done: Done) -> None:
        """Write changes; `done` hears when they are on disk, or that they are not."""
        if self._closed:
            done(StoreFailed("The gateway is stopping.", hint="Send it again when it is back."))
            return
        waiting = list(changes)
        self.waiting_bytes += _payload_bytes(waiting)
        self._waiting.append((waiting, done))
        self._begin()

    def later(self, changes: Iterable[Change]) -> None:
        """Write changes along with the next, or within a second; nobody is told."""
        if self._closed:
            return
        self._waiting.append((list(changes), None))
        if self._writing is None and self._due is None:
            self._due = asyncio.get_running_loop().call_later(_LATER_S, self._begin)

    async def written(self, changes: Sequence[Change] = ()) -> None:
        """Return when the changes, and all before them, are on disk. Raises StoreFailed."""
        on_disk: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: StoreFailed | None) -> None:
            if on_disk.done():
                return
            if error is None:
                on_disk.set_result(None)
            else:
                on_disk.set_exception(error)

        if changes or self._waiting or self._writing is not None:
            self.write(changes, done)
            await on_disk

    async def close(self) -> None:
        """Return when all changes are on disk; later ones are refused. Raises StoreFailed."""
        try:
            await self.written()
        finally:
            self._closed = True

    def _begin(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._run(), name="mqtt store")

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._write_next()
        finally:
            self._writing = None

    async def _write_next(self) -> None:
        """Write what waits, as one transaction, and tell everybody."""
        taken, size = 0, 0
        while taken < len(self._waiting) and size < _CHANGES_PER_COMMIT:
            size += len(self._waiting[taken][0])
            taken += 1
        batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
        failure: StoreFailed | None = None
        if size:
            try:
                await self._commit([change for changes, _ in batch for change in changes])
            except StoreFailed as error:
                logger.error("what MQTT clients are owed could not be stored: %s", error.message)  # noqa: TRY400 - it is the disk's fault
                self._log.bounds.failed(error)
                failure = error
        for changes, done in batch:
            if done is not None:
                self.waiting_bytes -= _payload_bytes(changes)
                self._tell(done, failure)

    async def _commit(self, changes: Sequence[Change]) -> None:
        batch = _Batch(changes, None if self.trim_messages is None else self.trim_messages())
        for attempt in range(_TRIES):
            try:
                await self._log.transact(batch)
            except StoreFailed as error:
                if not is_damage(error.__cause__) or attempt == _TRIES - 1:
                    raise
            else:
                assert batch.pages is not None
                self._log.bounds.committed(batch.pages, 0)
                if batch.trim is not None and batch.trim.left:
                    self.on_messages_left(batch.trim.left)
                return

    @staticmethod
    def _tell(done: Done, failure: StoreFailed | None) -> None:
        """Tell who waited; a defect of its own stops nobody else."""
        try:
            done(failure)
        except Exception:
            logger.exception("whoever waited for the store failed, by a fault of ours")


def _payload_bytes(changes: Sequence[Change]) -> int:
    return sum(len(value) for _, parameters in changes for value in parameters if isinstance(value, bytes))
