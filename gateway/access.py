"""Who may come in, and what each may touch: an in-memory view of `state.db`, so that a login costs microseconds.

Whoever changes the credentials calls `refresh`; when it returns, whoever has lost access is gone.
"""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.model.topics import owned_prefixes, telemetry_topics
from gateway.storage.passwords import hash_password
from gateway.storage.state import CredentialRow, DeviceRow, State


@dataclass(slots=True, eq=False)
class Device:
    """A device as the data path needs it; one object for as long as the gateway runs."""

    organization_id: str
    device_id: str
    metadata: str | None = None
    """Its metadata as JSON, stored with each reading; None when there is none."""
    readings: int = 0
    last_seen_ms: int = 0


@dataclass(slots=True, frozen=True, eq=False)
class Credential:
    """Someone who may come in: a device, on its own topics."""

    username: str
    device: Device
    prefixes: tuple[str, ...]
    telemetry_topics: tuple[str, ...]


class Access:
    """See the module's own words."""

    def __init__(self, state: State, password_key: bytes) -> None:
        self._state = state
        self._password_key = password_key
        self._refreshing = asyncio.Lock()
        self._devices: dict[tuple[str, str], Device] = {}
        self._by_username: dict[str, tuple[bytes, Credential]] = {}
        self._by_hash: dict[bytes, Credential] = {}
        self.on_change: list[Callable[[], Awaitable[None]]] = []
        """Awaited after the credentials have changed; a listener drops whoever is not `current` any more."""

    @property
    def devices(self) -> list[Device]:
        """Every device the gateway knows."""
        return list(self._devices.values())

    def device(self, organization_id: str, device_id: str) -> Device | None:
        """Return the device of that name."""
        return self._devices.get((organization_id, device_id))

    def authenticate(self, username: str, password: str) -> Credential | None:
        """Return the credential if name and password are right."""
        expected, credential = self._by_username.get(username, (b"", None))
        given = hash_password(self._password_key, password)
        return credential if hmac.compare_digest(expected, given) else None

    def authenticate_key(self, api_key: str) -> Credential | None:
        """Return the credential whose password this is. The look-up is by keyed hash, so timing tells nothing."""
        return self._by_hash.get(hash_password(self._password_key, api_key))

    def is_known(self, username: str) -> bool:
        """Whether there is a credential of that name."""
        return username in self._by_username

    def is_current(self, credential: Credential) -> bool:
        """Whether the credential has neither been revoked nor replaced."""
        return self._by_username.get(credential.username, (b"", None))[1] is credential

    async def refresh(self) -> None:
        """Read the state again; returns when every listener has dropped whoever has lost access."""
        async with self._refreshing:
            credentials = await self._state.credentials()
            devices = await self._state.devices()  # second: a credential's device is there before it
            self._replace(devices, credentials)
        for changed in self.on_change:
            await changed()

    def _replace(self, devices: list[DeviceRow], credentials: list[CredentialRow]) -> None:
        """Take over what was read; what has not changed stays the same object, as live connections hold it."""
        for row in devices:
            key = (row.organization_id, row.device_id)
            device = self._devices.setdefault(key, Device(*key))
            device.metadata = json.dumps(row.metadata, separators=(",", ":")) if row.metadata else None
        old, self._by_username, self._by_hash = self._by_username, {}, {}
        for login in credentials:
            if login.device_id is None:
                continue
            password_hash, credential = old.get(login.username, (b"", None))
            if credential is None or password_hash != login.password_hash:
                credential = Credential(
                    login.username,
                    self._devices[login.organization_id, login.device_id],
                    owned_prefixes(login.organization_id, login.device_id),
                    telemetry_topics(login.organization_id, login.device_id),
                )
            self._by_username[login.username] = (login.password_hash, credential)
            self._by_hash[login.password_hash] = credential
