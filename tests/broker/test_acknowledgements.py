"""Whatever comes between: acknowledgements leave in the order of the publishes, and none before its commit."""

from dataclasses import dataclass
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.acknowledgements import Acknowledgements
from gateway.broker.packets import Message


@dataclass(frozen=True)
class Publish:
    """One inbound PUBLISH: telemetry waits for a commit, everything else for its turn."""

    kind: Literal["telemetry", "other"]
    is_answered: bool
    """QoS 1 or 2; a message of QoS 0 has its place without bytes."""
    is_wanted: bool
    """By a local subscriber."""


@dataclass(frozen=True)
class Commit:
    """Some of the telemetry that was handed in is on disk."""

    share: float


PUBLISHES = st.builds(Publish, st.sampled_from(["telemetry", "other"]), st.booleans(), st.booleans())
PLAIN = st.builds(Publish, st.just("telemetry"), st.booleans(), st.just(value=False))
COMMITS = st.builds(Commit, st.floats(0, 1))
STEPS = st.lists(PUBLISHES | PLAIN | COMMITS, max_size=60)


class Client:
    """Hands in what a connection would, and notes what the client gets to see, and when."""

    def __init__(self) -> None:
        self.owed = Acknowledgements(self._fan_out)
        self.publishes: list[Publish] = []
        self.committed = 0
        self.acks = b""
        self.heard: list[int] = []

    def _fan_out(self, message: Message) -> None:
        number = int(message.payload)
        assert number < self.due, "heard before it was stored"
        self.heard.append(number)

    @property
    def handed_in(self) -> int:
        """Telemetry handed to the log."""
        return sum(publish.kind == "telemetry" for publish in self.publishes)

    @property
    def due(self) -> int:
        """How many publishes, from the first, wait for nothing any more."""
        stored = 0
        for number, publish in enumerate(self.publishes):
            stored += publish.kind == "telemetry"
            if stored > self.committed:
                return number
        return len(self.publishes)

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

    def ack(self, number: int) -> bytes:
        return b"\x40\x02" + (number + 1).to_bytes(2, "big") if self.publishes[number].is_answered else b""

    def check(self) -> None:
        """The client has seen exactly what is due, in order."""
        due = self.due
        assert self.acks == b"".join(self.ack(number) for number in range(due))
        assert self.heard == [number for number in range(due) if self.publishes[number].is_wanted]
        assert len(self.owed) == len(self.publishes) - due


@given(STEPS)
def test_whatever_the_interleaving_only_what_is_due_is_acknowledged_and_in_order(steps: list[Publish | Commit]) -> None:
    client = Client()
    for step in steps:
        if isinstance(step, Publish):
            client.publish(step)
        else:
            client.commit(round(step.share * (client.handed_in - client.committed)))
        client.check()
    client.commit(client.handed_in - client.committed)
    client.check()
    assert len(client.owed) == 0


@given(STEPS)
def test_what_is_withheld_is_never_acknowledged_nor_heard(steps: list[Publish | Commit]) -> None:
    client = Client()
    for step in steps:
        if isinstance(step, Publish):
            client.publish(step)
    before, heard = client.acks, list(client.heard)
    client.owed.withhold()
    assert (len(client.owed), client.owed.due()) == (0, b"")
    assert (client.acks, client.heard) == (before, heard)
    client.owed.owe_after_commit(b"new")
    assert client.owed.due(1) == b"new"
