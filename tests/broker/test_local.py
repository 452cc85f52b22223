"""amqtt holds what is subscribed to and retained; we look it up by levels."""

from typing import Any

import pytest
from amqtt.broker import Broker, BrokerContext

from gateway.broker.local import AmqttBroker
from gateway.broker.packets import Message
from gateway.broker.sessions import Session


def session(name: str) -> Session:
    return Session(f"default/kitchen|{name}", "default/", 0)


def broker() -> AmqttBroker:
    return AmqttBroker(lambda _client, _topic: True, lambda: 0)


def message(payload: bytes, topic: str = "default/a/b") -> Message:
    return Message(topic, payload, 1, retain=True)


async def test_amqtts_tables_are_the_only_ones_and_it_runs_nothing() -> None:
    """A contract with amqtt 0.12.1: its context gives its own tables, and a broker that is not started is quiet."""
    made: list[Broker] = []
    real = BrokerContext.__init__

    def init(context: BrokerContext, broker: Broker) -> None:
        made.append(broker)
        real(context, broker)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BrokerContext, "__init__", init)
        local = broker()
    one = session("one")
    local.subscribe(one, "default/a/#", 1)
    local.retain(message(b"x"))
    held: Any = made[-1].subscriptions
    assert held == {"default/a/#": [(one, 1)]}
    assert made[-1].retained_messages["default/a/b"].data == b"x"
    assert made[-1]._broadcast_task is None
    assert made[-1]._session_monitor_task is None


async def test_a_route_follows_the_subscriptions() -> None:
    local = broker()
    one, two = session("one"), session("two")
    assert local.route("default/a/b") == ()
    local.subscribe(one, "default/a/#", 1)
    local.subscribe(two, "default/+/b", 0)
    local.subscribe(two, "default/a/#", 2)
    assert dict(local.route("default/a/b")) == {one: 1, two: 2}
    local.subscribe(two, "default/a/#", 0)
    assert dict(local.route("default/a/b")) == {one: 1, two: 0}
    local.unsubscribe(one, "default/a/#")
    local.unsubscribe(one, "default/never/there")
    assert dict(local.route("default/a/b")) == {two: 0}
    local.unsubscribe(two, "default/a/#")
    local.unsubscribe(two, "default/+/b")
    assert (local.route("default/a/b"), local.subscriptions) == ((), 0)


async def test_a_route_follows_the_rights() -> None:
    """A session may outlive its rights: what is remembered does not."""
    changes, heard = 0, True
    local = AmqttBroker(lambda client, _topic: heard or client.endswith("|one"), lambda: changes)
    one, two = session("one"), session("two")
    local.subscribe(one, "default/a/#", 1)
    local.subscribe(two, "default/a/#", 1)
    assert dict(local.route("default/a/b")) == {one: 1, two: 1}
    changes, heard = 1, False
    assert dict(local.route("default/a/b")) == {one: 1}
    changes, heard = 2, True
    assert dict(local.route("default/a/b")) == {one: 1, two: 1}


async def test_remembered_routes_are_bounded() -> None:
    local = broker()
    for number in range(100_100):
        local.route(f"default/{number}")
    assert len(local._routes) <= 100_001


async def test_the_last_retained_message_counts() -> None:
    local = broker()
    local.retain(message(b"old"))
    local.retain(message(b"new"))
    assert list(local.retained_for("default/+/b")) == ["default/a/b"]
    assert local.retained("default/a/b") == message(b"new")
    local.retain(message(b""))
    local.retain(message(b""))
    assert list(local.retained_for("default/#")) == []
    assert local.retained("default/a/b") is None
