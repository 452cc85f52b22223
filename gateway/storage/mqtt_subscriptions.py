"""The subscriptions of the HTTP API in `state.db`: who wants to hear what, and where it is sent."""

import json
import secrets
from dataclasses import dataclass

import aiosqlite

from gateway.model.errors import BadInput, NotFound
from gateway.storage.state import State

AT_MOST = 100
"""Subscriptions of one organisation."""


@dataclass(slots=True, frozen=True)
class SubscriptionRow:
    """One subscription."""

    id: str
    organization_id: str
    topics: tuple[str, ...]
    """Topic filters, in the organisation's names."""
    callback_url: str | None
    """Where its messages are sent; None when they are only kept."""
    start: int
    """The newest message as it began: it hears what comes after."""
    created_at_ms: int


class MqttSubscriptions:
    """See the module's own words."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def all(self) -> list[SubscriptionRow]:
        """Return all subscriptions."""
        rows = await self._state.fetch(
            """SELECT id, organization_id, topics, callback_url, start, created_at FROM mqtt_subscriptions
            ORDER BY created_at, id"""
        )
        return [
            SubscriptionRow(name, organization, tuple(json.loads(topics)), url, start, at)
            for name, organization, topics, url, start, at in rows
        ]

    async def add(
        self, organization_id: str, topics: tuple[str, ...], callback_url: str | None, start: int
    ) -> SubscriptionRow:
        """Keep a subscription. Raises BadInput when the organisation has too many."""
        new = SubscriptionRow(
            f"sub_{secrets.token_hex(8)}", organization_id, topics, callback_url, start, self._state.now_ms()
        )

        async def insert(db: aiosqlite.Connection) -> bool:
            added = await db.execute(
                """INSERT INTO mqtt_subscriptions (id, organization_id, topics, callback_url, start, created_at)
                SELECT ?1, ?2, ?3, ?4, ?5, ?6
                WHERE (SELECT count(*) FROM mqtt_subscriptions WHERE organization_id = ?2) < ?7""",
                (
                    new.id,
                    organization_id,
                    json.dumps(topics, ensure_ascii=False),
                    callback_url,
                    start,
                    new.created_at_ms,
                    AT_MOST,
                ),
            )
            return added.rowcount > 0

        if not await self._state.change(insert):
            raise BadInput(
                "too_many_subscriptions",
                f"There are {AT_MOST} subscriptions of {organization_id} already.",
                hint="Delete one that nobody needs: DELETE mqtt-broker/subscriptions/{id}.",
            )
        return new

    async def remove(self, organization_id: str, subscription_id: str) -> None:
        """Forget a subscription. Raises NotFound."""

        async def delete(db: aiosqlite.Connection) -> bool:
            gone = await db.execute(
                "DELETE FROM mqtt_subscriptions WHERE organization_id = ? AND id = ?",
                (organization_id, subscription_id),
            )
            return gone.rowcount > 0

        if not await self._state.change(delete):
            raise NotFound(
                f"There is no subscription {subscription_id[:50]}.",
                hint="GET mqtt-broker/subscriptions shows what there is.",
            )
