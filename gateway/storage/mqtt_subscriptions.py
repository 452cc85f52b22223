"""The subscriptions of the HTTP API in `state.db`: who wants to hear what, and where it is sent.

Where it is sent is in the vault: in such an address there is often a token.
"""

import json
import secrets
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiosqlite

from gateway.model.errors import BadInput, NotFound
from gateway.model.secret import Secret
from gateway.storage.activity_log import GATEWAY, note
from gateway.storage.state import State
from gateway.storage.vault import CALLBACKS, Unreadable, Vault

AT_MOST = 100
"""Subscriptions of one organisation."""


@dataclass(slots=True, frozen=True)
class SubscriptionRow:
    """One subscription."""

    id: str
    organization_id: str
    topics: tuple[str, ...]
    """Topic filters, in the organisation's names."""
    callback_url: str | None = field(repr=False)
    """Where its messages are sent; None when they are only kept, empty when that cannot be read."""
    start: int
    """The newest message as it began: it hears what comes after."""
    created_at_ms: int
    unreadable: str = ""
    """Why its address cannot be read."""


class MqttSubscriptions:
    """See the module's own words."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._vault = Vault(state)

    async def encrypt_older(self) -> None:
        """Encrypt addresses that an earlier release has left readable. Raises ConfigError for the vault's key."""
        readable = "SELECT id, callback_url FROM mqtt_subscriptions WHERE typeof(callback_url) = 'text'"

        async def encrypt(db: aiosqlite.Connection) -> None:
            for name, url in await db.execute_fetchall(readable):
                value = await self._vault.seal(db, CALLBACKS.place(name), Secret(url))
                await db.execute("UPDATE mqtt_subscriptions SET callback_url = ? WHERE id = ?", (value, name))

        if list(await self._state.fetch(readable)):
            await self._state.change(encrypt, takes_access=True)
            await self._state.empty_wal()

    async def all(self) -> list[SubscriptionRow]:
        """Return all subscriptions."""
        rows = await self._state.fetch(
            """SELECT id, organization_id, topics, callback_url, start, created_at FROM mqtt_subscriptions
            ORDER BY created_at, id"""
        )
        return [
            SubscriptionRow(name, organization, tuple(json.loads(topics)), url, start, at, why)
            for name, organization, topics, value, start, at in rows
            for url, why in [await self._address(name, value)]
        ]

    async def _address(self, name: str, value: bytes | str | None) -> tuple[str | None, str]:
        """Return it, or why it cannot be read."""
        if not isinstance(value, bytes):
            return value, ""
        try:
            return (await self._vault.unseal(CALLBACKS.place(name), value)).get_secret_value(), ""
        except Unreadable as error:
            return "", str(error)

    async def add(
        self,
        organization_id: str,
        topics: tuple[str, ...],
        callback_url: str | None,
        start: int,
        *,
        by: str = GATEWAY,
    ) -> SubscriptionRow:
        """Keep a subscription. Raises BadInput when the organisation has too many."""
        new = SubscriptionRow(
            f"sub_{secrets.token_hex(8)}", organization_id, topics, callback_url, start, self._state.now_ms()
        )

        async def insert(db: aiosqlite.Connection) -> bool:
            address = None
            if callback_url is not None:
                address = await self._vault.seal(db, CALLBACKS.place(new.id), Secret(callback_url))
            added = await db.execute(
                """INSERT INTO mqtt_subscriptions (id, organization_id, topics, callback_url, start, created_at)
                SELECT ?1, ?2, ?3, ?4, ?5, ?6
                WHERE (SELECT count(*) FROM mqtt_subscriptions WHERE organization_id = ?2) < ?7""",
                (
                    new.id,
                    organization_id,
                    json.dumps(topics, ensure_ascii=False),
                    address,
                    start,
                    new.created_at_ms,
                    AT_MOST,
                ),
            )
            if added.rowcount > 0:
                host = None if callback_url is None else urlsplit(callback_url).hostname  # the rest may be secret
                after = {"topics": list(topics), "callback_host": host}
                await note(db, new.created_at_ms, by, organization_id, "subscription.add", new.id, None, after)
            return added.rowcount > 0

        if not await self._state.change(insert):
            raise BadInput(
                "too_many_subscriptions",
                f"There are {AT_MOST} subscriptions of {organization_id} already.",
                hint="Delete one that nobody needs: DELETE mqtt-broker/subscriptions/{id}.",
            )
        return new

    async def remove(self, organization_id: str, subscription_id: str, *, by: str = GATEWAY) -> None:
        """Forget a subscription. Raises NotFound."""

        async def delete(db: aiosqlite.Connection) -> bool:
            gone = await db.execute_fetchall(
                "DELETE FROM mqtt_subscriptions WHERE organization_id = ? AND id = ? RETURNING topics",
                (organization_id, subscription_id),
            )
            for (topics,) in gone:
                before, now_ms = {"topics": json.loads(topics)}, self._state.now_ms()
                await note(db, now_ms, by, organization_id, "subscription.remove", subscription_id, before, None)
                return True
            return False

        if not await self._state.change(delete):
            raise NotFound(
                f"There is no subscription {subscription_id[:50]}.",
                hint="GET mqtt-broker/subscriptions shows what there is.",
            )
