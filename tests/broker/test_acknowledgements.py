"""Whatever comes between: acknowledgements leave in the order of the publishes, and none before all it waits for."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.acknowledgements import Acknowledgements
from gateway.broker.packets import Message
from gateway.model.errors import StoreFailed


@dataclass(frozen=True)
class Publish:
    """One inbound PUBLISH: telemetry waits for a commit, everything else for its turn."""

    kind: Literal["telemetry", "other"]
    is_answered: bool
    """QoS 1 or 2; a message of QoS 0 has its place without bytes."""
    is_wanted: bool
    """By a local subscriber."""
    is_kept: bool
    """Something of it has to be on disk before it is answered."""


@dataclass(frozen=True)
class Commit:
    """Some of the telemetry that was handed in is on disk."""

    share: float


@dataclass(frozen=True)
class Keep:
    """So many of the messages that are to be kept are on disk."""

    count: int


PUBLISHES = st.builds(Publish, st.sampled_from(["telemetry", "other"]), st.booleans(), st.booleans(), st.booleans())
COMMITS = st.builds(Commit, st.floats(0, 1)) | st.builds(Keep, st.integers(1, 5))


@dataclass(frozen=True)
class Wait:
    """Somebody waits for all that is owed by now."""


STEPS = st.lists(PUBLISHES | COMMITS | st.just(Wait()), max_size=60)


class Client:
    """Hands in what a connection would, and notes what the client gets to see, and when."""

    def __init__(self) -> None:
        self.owed = Acknowledgements(self._hand_on, self._hear, self._fail)
        self.publishes: list[Publish] = []
        self.committed = 0
        self.acks = b""
        self.heard: list[int] = []
        self.keeping: deque[tuple[int, Callable[[StoreFailed | None], None]]] = deque()
        self.failures = 0
        self.waited: list[tuple[int, int]] = []
        """Of whoever waited: the publishes there were then, and those that waited for nothing when it was called."""
        self.waiting = 0

    def _hear(self, acks: bytes) -> None:
        self.acks += acks

    def _fail(self, _: StoreFailed) -> None:
        self.failures += 1
        self.owed.withhold()

    def _hand_on(
        self,
        message: Message | None,
        received: bytes | None,  # noqa: ARG002 - told apart elsewhere
        done: Callable[[StoreFailed | None], None],
        *,
        in_turn: bool,
    ) -> bool:
        assert message is not None
        number = int(message.payload)
        assert number < self.passed, "handed on before it was stored"
        self.heard.append(number)
        if not self.publishes[number].is_kept and not in_turn:
            return True
        self.keeping.append((number, done))
        return False

    @property
    def handed_in(self) -> int:
        """Telemetry handed to the log."""
        return sum(publish.kind == "telemetry" for publish in self.publishes)

    @property
    def passed(self) -> int:
        """How many publishes, from the first, wait for no commit and no turn any more."""
        stored = 0
        for number, publish in enumerate(self.publishes):
            stored += publish.kind == "telemetry"
            if stored > self.committed:
                return number
        return len(self.publishes)

    @property
    def due(self) -> int:
        """How many publishes, from the first, wait for nothing any more."""
        return min((number for number, _ in self.keeping), default=self.passed)

    def publish(self, publish: Publish) -> None:
        number = len(self.publishes)
        self.publishes.append(publish)
        message = Message("topic", str(number).encode(), 0, retain=False) if publish.is_wanted else None
        if publish.kind == "telemetry":
            self.owed.owe_after_commit(self.ack(number), message)
        else:
            self.owed.owe_in_turn(self.ack(number), message)
            self.acks += self.owed.due()

    def commit(self, count: int) -> None:
        self.committed += count
        self.acks += self.owed.due(count)

    def keep(self, count: int, error: StoreFailed | None = None) -> None:
        for _ in range(min(count, len(self.keeping))):
            _, done = self.keeping.popleft()
            done(error)

    def wait(self) -> None:
        before = len(self.publishes)
        self.waiting += 1

        def then() -> None:
            self.waiting -= 1
            self.waited.append((before, self.due))

        self.owed.after_all(then)

    def do(self, step: Publish | Commit | Keep | Wait) -> None:
        match step:
            case Publish():
                self.publish(step)
            case Commit(share):
                self.commit(round(share * (self.handed_in - self.committed)))
            case Keep(count):
                self.keep(count)
            case Wait():
                self.wait()

    def ack(self, number: int) -> bytes:
        return b"\x40\x02" + (number + 1).to_bytes(2, "big") if self.publishes[number].is_answered else b""

    def check(self) -> None:
        """The client has seen exactly what is due, in order."""
        assert self.acks == b"".join(self.ack(number) for number in range(self.due))
        assert self.heard == [number for number in range(self.passed) if self.publishes[number].is_wanted]
        assert len(self.owed) == len(self.publishes) - self.due + self.waiting
        assert all(before <= due for before, due in self.waited)


@given(STEPS)
def test_whatever_the_interleaving_only_what_is_due_is_acknowledged_and_in_order(
    steps: list[Publish | Commit | Keep | Wait],
) -> None:
    client = Client()
    for step in steps:
        client.do(step)
        client.check()
    client.commit(client.handed_in - client.committed)
    client.keep(len(client.keeping))
    client.check()
    assert (len(client.owed), client.waiting) == (0, 0)


@given(STEPS)
def test_what_is_withheld_is_never_acknowledged_nor_heard(steps: list[Publish | Commit | Keep | Wait]) -> None:
    client = Client()
    for step in steps:
        client.do(step)
    before, heard = client.acks, list(client.heard)
    client.owed.withhold()
    assert client.waiting == 0, "nobody waits for what is withheld"
    client.keep(len(client.keeping))
    assert (len(client.owed), client.owed.due()) == (0, b"")
    assert (client.acks, client.heard) == (before, heard)
    client.owed.owe_after_commit(b"new")
    assert client.owed.due(1) == b"new"


def test_what_cannot_be_kept_is_not_acknowledged_nor_anything_after_it() -> None:
    client = Client()
    client.publish(Publish("other", is_answered=True, is_wanted=True, is_kept=True))
    client.publish(Publish("other", is_answered=True, is_wanted=True, is_kept=False))
    client.keep(2, StoreFailed("The disk is broken."))
    assert (client.failures, client.acks, len(client.owed)) == (2, b"", 0)
