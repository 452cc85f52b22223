"""The activity log: every change with its own transaction, no secret, and a bound for each organisation."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from gateway.clock import ManualClock
from gateway.model.errors import AlreadyExists
from gateway.storage import activity_log
from gateway.storage.activity_log import note, read_activity
from gateway.storage.credentials import Credentials
from gateway.storage.device_metadata import change_metadata
from gateway.storage.mqtt_subscriptions import MqttSubscriptions
from gateway.storage.state import State
from gateway.storage.tokens import Tokens

KEY = bytes(range(32))


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[State]:
    async with State.open(tmp_path / "state.db", KEY, clock=ManualClock()) as state:
        yield state


def is_on_disk(folder: Path, words: str) -> bool:
    return any(words.encode() in file.read_bytes() for file in folder.iterdir())


async def entries(state: State, organization_id: str | None = "acme") -> list[tuple[Any, ...]]:
    """Return what the log has, the oldest first."""
    rows = await read_activity(state.fetch, organization_id, limit=100)
    return [(one.actor, one.action, one.subject, one.before, one.after) for one in rows[::-1]]


async def write(state: State, organization_id: str | None, subject: str, **fields: Any) -> None:
    async def work(db: aiosqlite.Connection) -> None:
        await note(db, 1, "cli", organization_id, "test", subject, **fields)

    await state.change(work)


async def test_each_change_says_what_it_did(state: State) -> None:
    await state.add_device("acme", "kitchen", {"room": "k"}, serial_number="7", by="cli")
    await change_metadata(state, "acme", "kitchen", {"floor": 2}, by="jwt:bob")
    await change_metadata(state, "acme", "hall", {"floor": 1}, by="token:panel")
    await state.revoke_device("acme", "kitchen", by="cli")
    await Credentials(state).add("hub", "acme", by="cli")
    await Credentials(state).rotate("hub@acme", 3_600_000, by="cli")
    await Credentials(state).revoke("hub@acme", by="cli")
    token = await Tokens(state).add("alice", "acme", "admin", by="cli")
    await Tokens(state).revoke(token.id, by="cli")
    row = await MqttSubscriptions(state).add("acme", ("a/#",), "https://x.test/?token=abc", 0, by="token:panel")
    await MqttSubscriptions(state).remove("acme", row.id, by="token:panel")
    new = {"status": "active", "name": "", "serial_number": "7", "hardware_ids": [], "metadata": {"room": "k"}}
    callback = {"topics": ["a/#"], "callback_host": "x.test"}
    assert await entries(state) == [
        ("cli", "device.add", "kitchen", None, new),
        ("jwt:bob", "device.update", "kitchen", {"metadata": {"room": "k"}}, {"metadata": {"room": "k", "floor": 2}}),
        ("token:panel", "device.add", "hall", None, {"metadata": {"floor": 1}}),
        ("cli", "device.revoke", "kitchen", {"status": "active"}, {"status": "revoked"}),
        ("cli", "credential.add", "hub@acme", None, {"username": "hub@acme"}),
        ("cli", "credential.rotate", "hub@acme", None, {"overlap_s": 3600.0}),
        ("cli", "credential.revoke", "hub@acme", {"username": "hub@acme"}, None),
        ("cli", "token.create", token.id, None, {"name": "alice", "role": "admin"}),
        ("cli", "token.revoke", token.id, {"name": "alice", "role": "admin"}, None),
        ("token:panel", "subscription.add", row.id, None, callback),
        ("token:panel", "subscription.remove", row.id, {"topics": ["a/#"]}, None),
    ]


async def test_p7_no_secret_is_written_down(state: State, tmp_path: Path) -> None:
    secrets = [(await state.add_device("acme", "kitchen", {"wifi_password": "hunter2"})).password]
    secrets += [(await Credentials(state).add("hub", "acme")).password, await Credentials(state).rotate("hub@acme", 1)]
    secrets.append((await Tokens(state).add("alice", "acme", "owner")).token)
    log = repr(await entries(state))
    assert "hunter2" not in log
    assert len(secrets) == 4
    assert not any(secret in log or is_on_disk(tmp_path, secret) for secret in secrets)


async def test_what_did_not_happen_is_not_there(state: State) -> None:
    await state.add_device("acme", "kitchen", serial_number="7")
    with pytest.raises(AlreadyExists):
        await state.add_device("acme", "hall", serial_number="7")
    await Tokens(state).add("alice", "acme", "member")
    with pytest.raises(AlreadyExists):
        await Tokens(state).add("alice", "acme", "owner")
    assert [one[1] for one in await entries(state)] == ["device.add", "token.create"]


async def test_only_what_differs_is_kept(state: State) -> None:
    await write(state, "acme", "x", before={"a": 1, "b": 2, "c": [1]}, after={"a": 1, "b": 3, "d": None})
    assert (await entries(state))[0][3:] == ({"b": 2, "c": [1]}, {"b": 3, "d": None})


async def test_p8_and_p9_nobody_pushes_out_what_others_did(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity_log, "ENTRIES_AT_MOST", 3)
    await write(state, "acme", "a")
    await write(state, None, "site")
    for number in range(5):
        await write(state, "other", str(number))
    assert [one[2] for one in await entries(state, "other")] == ["2", "3", "4"]
    assert [one[2] for one in await entries(state, "acme")] == ["a"]
    assert [one[2] for one in await entries(state, None)] == ["site"]
    monkeypatch.setattr(activity_log, "BYTES_AT_MOST", 1_500)
    for number in range(3):
        await write(state, "acme", f"big {number}", after={"x": "y" * 500})
    assert [one[2] for one in await entries(state, "acme")] == ["big 1", "big 2"]


async def test_pages_go_on_where_the_one_before_ended(state: State) -> None:
    for number in range(5):
        await write(state, "acme" if number % 2 else "other", str(number))
    first = await read_activity(state.fetch, None, everybodys=True, limit=2)
    rest = await read_activity(state.fetch, None, everybodys=True, before_id=first[-1].id, limit=9)
    assert [one.subject for one in first + rest] == ["4", "3", "2", "1", "0"]
    (own,) = await read_activity(state.fetch, "acme", before_id=first[-1].id, limit=9)
    assert own.subject == "1"
