"""Integrations in the state: a change and its entry are one, secrets are in the vault, and nobody sees another's."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.model.errors import AlreadyExists, BadInput, Conflict, NotFound
from gateway.storage import integrations
from gateway.storage.activity_log import ActivityRow, read_activity
from gateway.storage.integrations import IntegrationRow, Integrations, Values
from gateway.storage.organizations import Organizations
from gateway.storage.state import State
from gateway.storage.vault import Unreadable, Vault

KEY = bytes(range(32))
SECRET = "planted-kitchen-4711"


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[State]:
    async with State.open(tmp_path / "state.db", KEY, clock=ManualClock()) as state:
        yield state


def new(name: str = "Building API", organization: str = "acme") -> IntegrationRow:
    return IntegrationRow("", organization, "webhook", name, {"url": "https://example.org"})


def contents(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in folder.iterdir()]


def lose_key(folder: Path) -> None:
    (key,) = folder.glob("vault-*.key")
    key.unlink()


async def activity(state: State, organization: str = "acme") -> list[ActivityRow]:
    return await read_activity(state.fetch, organization, limit=10)


async def test_what_was_added_is_there_with_its_secrets_and_in_an_organisation(state: State, tmp_path: Path) -> None:
    known = Integrations(state)
    row = await known.add(new(), {"secret": SECRET, "custom_headers": {"X-A": SECRET}}, by="token:alice")
    assert await known.get(row.id) == row
    assert await known.list("acme") == await known.list() == [row]
    assert (row.status, row.sync_interval_seconds, row.conflict_resolution) == ("active", 300, "manual")
    assert row.secret_names == ("custom_headers", "secret")
    assert await known.secrets(row) == {"secret": SECRET, "custom_headers": {"X-A": SECRET}}
    assert [one.id for one in await Organizations(state).all()] == ["acme"]
    (entry,) = await activity(state)
    assert (entry.action, entry.subject, entry.actor) == ("integration.add", row.id, "token:alice")
    assert entry.after is not None
    assert entry.after["settings.url"] == "https://example.org"
    assert SECRET not in repr(row) + repr(entry)
    assert not any(SECRET.encode() in content for content in contents(tmp_path))


async def test_what_was_done_to_integrations_has_its_documented_name(state: State) -> None:
    known = Integrations(state)
    row = await known.add(new(), {}, by="token:alice")
    await known.remove(row.id, by="cli")
    columns = "organization_id, integration_id, action, actor, created_at"
    rows = await state.fetch(f"SELECT {columns} FROM integration_activity_log ORDER BY id")
    now_ms = state.now_ms()
    assert [*map(tuple, rows)] == [
        ("acme", row.id, "add", "token:alice", now_ms),
        ("acme", row.id, "remove", "cli", now_ms),
    ]


async def test_nobody_reaches_into_another_organisation(state: State) -> None:
    known = Integrations(state)
    row = await known.add(new(), {})
    assert await known.list("beta") == []
    for attempt in (
        known.get(row.id, "beta"),
        known.change(row.id, lambda old, _: (replace(old, name="Mine"), None), organization_id="beta"),
        known.remove(row.id, organization_id="beta"),
        known.get("nobody"),
    ):
        with pytest.raises(NotFound, match="There is no integration"):
            await attempt
    assert await known.list() == [row]
    assert await activity(state, "beta") == []


async def test_a_name_is_one_of_its_organisation(state: State) -> None:
    known = Integrations(state)
    first = await known.add(new(), {})
    await known.add(new(organization="beta"), {})
    with pytest.raises(AlreadyExists, match=first.id):
        await known.add(new(), {})
    second = await known.add(new("Other"), {})
    with pytest.raises(AlreadyExists):
        await known.change(second.id, lambda old, _: (replace(old, name=first.name), None))
    for bad in ("", " x", "x" * 256, "a\nb"):
        with pytest.raises(BadInput, match="The name is no text"):
            await known.add(new(bad), {})
    assert len(await known.list()) == 3
    assert len(await activity(state)) == 2


async def test_a_change_that_fails_changes_nothing_and_one_that_changes_nothing_is_none(state: State) -> None:
    known = Integrations(state)
    row = await known.add(new(), {"secret": SECRET})

    def refuse(_: IntegrationRow, secrets: Values | Unreadable) -> tuple[IntegrationRow, Values | None]:
        assert secrets == {"secret": SECRET}
        raise BadInput("invalid", "No.")

    with pytest.raises(BadInput):
        await known.change(row.id, refuse)
    assert await known.change(row.id, lambda old, _: (old, None)) == row
    assert await known.list() == [row]
    assert len(await activity(state)) == 1


async def test_secrets_are_left_replaced_or_taken_away(state: State) -> None:
    known = Integrations(state)
    row = await known.add(new(), {"secret": SECRET})
    row = await known.change(row.id, lambda old, _: (replace(old, name="Other"), None))
    assert await known.secrets(row) == {"secret": SECRET}
    row = await known.change(row.id, lambda old, _: (old, {"api_key": SECRET}))
    assert await known.secrets(await known.get(row.id)) == {"api_key": SECRET}
    row = await known.change(row.id, lambda old, _: (old, {}))
    assert (row.sealed, row.secret_names, await known.secrets(row)) == (None, (), {})
    assert SECRET not in repr(await activity(state))
    assert [entry.action for entry in await activity(state)] == ["integration.update"] * 3 + ["integration.add"]


async def test_secrets_outlive_a_rotation_and_are_missed_with_the_key(state: State, tmp_path: Path) -> None:
    known = Integrations(state)
    row = await known.add(new(), {"secret": SECRET})
    assert (await Vault(state).rotate()).values == 1
    turned = await known.get(row.id)
    assert turned.sealed != row.sealed
    assert await known.secrets(turned) == {"secret": SECRET}
    with pytest.raises(Unreadable):
        await known.secrets(row)
    lose_key(tmp_path)
    with pytest.raises(Unreadable):
        await known.secrets(turned)
    (notice,) = await Vault(state).notices()
    assert "what it has encrypted (1) cannot be read" in notice
    seen: list[object] = []

    def look(old: IntegrationRow, secrets: Values | Unreadable) -> tuple[IntegrationRow, Values | None]:
        seen.append(secrets)
        return replace(old, name="Renamed all the same"), None

    assert (await known.change(row.id, look)).secret_names == ("secret",)
    assert isinstance(seen[0], Unreadable)


async def test_a_secret_opens_only_in_its_own_row(state: State) -> None:
    known = Integrations(state)
    mine, theirs = await known.add(new(), {}), await known.add(new(organization="beta"), {"secret": SECRET})
    with pytest.raises(Unreadable, match="moved here from elsewhere"):
        await known.secrets(replace(mine, sealed=theirs.sealed))


async def test_what_was_removed_stays_known_until_it_is_forgotten(state: State) -> None:
    known = Integrations(state)
    row = await known.add(new(), {"secret": SECRET})
    await known.remove(row.id, by="cli")
    assert await known.list() == []
    assert await known.removed() == [row.id]
    await known.forget(row.id)
    assert await known.removed() == []
    entry = (await activity(state))[0]
    assert (entry.action, entry.actor, entry.after) == ("integration.remove", "cli", None)


async def test_why_one_could_not_be_started_is_noted_and_is_no_change(state: State) -> None:
    known = Integrations(state)
    row = await known.add(new(), {})
    await known.note_start(row.id, "Its key is not there.")
    assert await known.get(row.id) == replace(row, status="error", sync_error="Its key is not there.")
    assert (await known.get(row.id)).is_wanted
    await known.note_start(row.id, None)
    assert await known.get(row.id) == row
    resting = await known.change(row.id, lambda old, _: (replace(old, status="inactive"), None))
    await known.note_start(row.id, None)
    assert (await known.get(row.id)).status == resting.status == "inactive"
    assert len(await activity(state)) == 2


async def test_an_organisation_has_only_so_many(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrations, "AT_MOST", 2)
    known = Integrations(state)
    for name in ("a", "b"):
        await known.add(new(name), {})
    with pytest.raises(BadInput, match="There are 2 integrations of acme already"):
        await known.add(new("c"), {})
    await known.add(new("c", "beta"), {})


async def test_an_organisation_with_integrations_stays(state: State) -> None:
    row = await Integrations(state).add(new(), {})
    with pytest.raises(Conflict) as raised:
        await Organizations(state).remove("acme", by="cli")
    assert str(raised.value) == (
        f"The integration Building API is of acme. Remove it: neurogate integration remove {row.id}"
    )
    await Integrations(state).remove(row.id)
    await Organizations(state).remove("acme", by="cli")


async def test_they_are_in_every_copy_with_their_secrets_sealed_and_open_where_it_is_restored(
    state: State, tmp_path: Path
) -> None:
    row = await Integrations(state).add(new(), {"secret": SECRET})
    with closing(sqlite3.connect(tmp_path / "state.db.copy")) as db:
        assert db.execute("SELECT id FROM device_integrations").fetchall() == [(row.id,)]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    await state.copy_to(elsewhere / "state.db")
    async with State.open(elsewhere / "state.db", KEY, clock=ManualClock()) as restored:
        (there,) = await Integrations(restored).list()
        assert await Integrations(restored).secrets(there) == {"secret": SECRET}
