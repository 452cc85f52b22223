"""Who may come in, and what each may touch: an in-memory view of `state.db`, so that a login costs microseconds.

Whoever changes the credentials calls `refresh`; when it returns, whoever has lost access is gone. What is learned here,
how credentials are used and which unknown devices were heard, is written by `keep_written`, in batches and behind the
data path.
"""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from gateway.access.credential import Credential, Statistics
from gateway.access.known_devices import Device, KnownDevices
from gateway.access.publication import Publication
from gateway.access.routed import Routed
from gateway.certificates.authority import ClientIdentity
from gateway.clock import Clock
from gateway.model.errors import StoreFailed
from gateway.model.topics import addressed_device, is_for_device, is_of_devices, is_telemetry
from gateway.model.vitals import LoginActivity
from gateway.parsers.contract import Parser
from gateway.parsers.routes import ParserRoutes
from gateway.storage.credentials import CredentialRow, Credentials, Usage
from gateway.storage.passwords import hash_password
from gateway.storage.state import State

logger = logging.getLogger(__name__)

_TOPICS_REMEMBERED = 200  # of each username that subscribes
_LOOK_EVERY_S = 5.0
_USAGE_EVERY_MS = 60_000
_GATHER_S = 1.0  # a hub that starts shows all its devices at once


@dataclass(slots=True)
class _Login:
    """A username's passwords."""

    row: CredentialRow
    passwords: list[tuple[bytes, Credential]]
    """The valid one first, then perhaps the one that it replaces."""
    old_ends_ms: int
    """When the second one ends (monotonic)."""
    by_certificate: Credential
    """Who comes in by a certificate; passwords come and go without it."""
    hears: dict[str, bool] = field(default_factory=dict)
    """What was found out of topics behind the door: it is asked again whenever a subscription comes or goes."""


class Access:
    """See the module's own words."""

    def __init__(self, state: State, password_key: bytes, clock: Clock, routes: ParserRoutes | None = None) -> None:
        self._state = state
        self._credentials = Credentials(state)
        self._password_key = password_key
        self._clock = clock
        self._routes = routes or ParserRoutes()
        self._refreshing = asyncio.Lock()
        self._writing = asyncio.Lock()
        self.devices = KnownDevices(state)
        self._by_username: dict[str, _Login] = {}
        self._by_hash: dict[bytes, Credential] = {}
        self._noted: dict[str, Usage] = {}
        """What the state says of each credential's use."""
        self._noted_at_ms = clock.monotonic_ms()
        self.changes = 0
        """Grows at the moment when anybody's rights may have changed."""
        self.on_change: list[Callable[[], Awaitable[None]]] = []
        """Awaited after the credentials have changed; a listener drops whoever is not `current` any more."""

    def authenticate(self, username: str, password: str) -> Credential | None:
        """Return the credential if name and password are right."""
        given = hash_password(self._password_key, password)
        login = self._by_username.get(username)
        if login is None:
            return None
        for expected, credential in self._valid(login):
            if hmac.compare_digest(expected, given):
                return credential
        statistics = login.passwords[0][1].statistics
        statistics.refused += 1
        statistics.recent_refused.add(self._clock.monotonic_ms())
        return None

    def _valid(self, login: _Login) -> Iterator[tuple[bytes, Credential]]:
        yield login.passwords[0]
        if len(login.passwords) > 1 and self._clock.monotonic_ms() < login.old_ends_ms:
            yield login.passwords[1]

    def authenticate_key(self, api_key: str) -> Credential | None:
        """Return the credential whose password this is. The look-up is by keyed hash, so timing tells nothing."""
        credential = self._by_hash.get(hash_password(self._password_key, api_key))
        return credential if credential is not None and self.is_current(credential) else None

    def identify(self, identity: ClientIdentity) -> Credential | None:
        """Return the credential of whoever showed a certificate of ours; None when it was revoked since."""
        login = self._by_username.get(identity.username)
        if login is None or login.row.created_at_ms != identity.created_at_ms:
            return None
        login.by_certificate.statistics.certificate_ends_ms = identity.ends_at_ms
        return login.by_certificate

    def certificates_seen(self) -> list[tuple[Device, int]]:
        """Return which devices have come in by a certificate since the start, and when that ends (unix ms)."""
        used = (login.by_certificate for login in self._by_username.values())
        return [
            (one.device, one.statistics.certificate_ends_ms)
            for one in used
            if one.device is not None and one.statistics.certificate_ends_ms is not None
        ]

    def is_known(self, username: str) -> bool:
        """Whether there is a credential of that name."""
        return username in self._by_username

    def namespace_of(self, username: str) -> str | None:
        """Return what stands before the topics of that name's credential behind the door; None when there is none."""
        login = self._by_username.get(username)
        return None if login is None else login.passwords[0][1].namespace

    def is_current(self, credential: Credential) -> bool:
        """Whether the password, or certificate, that the credential came in by is still good."""
        login = self._by_username.get(credential.username)
        if login is None:
            return False
        return login.by_certificate is credential or any(one is credential for _, one in self._valid(login))

    def may_hear(self, username: str, local_topic: str) -> bool:
        """Whether a message on this topic behind the door may be sent to, or kept for, whoever has that name."""
        login = self._by_username.get(username)
        if login is None:
            return False
        may = login.hears.get(local_topic)
        if may is None:
            if len(login.hears) >= _TOPICS_REMEMBERED:
                login.hears.clear()
            credential = login.passwords[0][1]
            space = credential.namespace
            may = local_topic.startswith(space) and credential.rights.may_hear(local_topic[len(space) :])
            login.hears[local_topic] = may
        return may

    def came_in(self, credential: Credential) -> None:
        """Count a login."""
        credential.statistics.connections += 1
        credential.statistics.last_connected_ms = self._clock.now_ms()
        credential.statistics.recent_connections.add(self._clock.monotonic_ms())

    def login_activity(self) -> list[LoginActivity]:
        """Return who has logged in, or tried to with a wrong password, in the last minutes."""
        now = self._clock.monotonic_ms()
        used = ((name, login.passwords[0][1].statistics) for name, login in self._by_username.items())
        found = [
            LoginActivity(name, one.recent_connections.count(now), one.recent_refused.count(now)) for name, one in used
        ]
        return [one for one in found if one.logins or one.refused]

    def sender(self, credential: Credential, topic: str, *, is_read: bool = False) -> Device | None:
        """Return the device in whose name something is published, None if it is in nobody's.

        One that is unknown is noted as discovered, unless it is only spoken to: `is_read` says that a parser reads
        there what it has said.
        """
        if credential.device is not None or credential.organization_id is None:
            return credential.device
        device_id = addressed_device(credential.organization_id, topic)
        if device_id is None:
            return None
        if is_for_device(topic) and not is_read:
            return self.devices.spoken_to(credential.organization_id, device_id)
        return self.devices.heard(credential.organization_id, device_id)

    def publication(self, credential: Credential, topic: str) -> Publication | None:
        """Return what a message on the topic is when this client publishes it; None when it may not."""
        routed = self.routed(credential, topic)
        if routed is not None:
            parser, sender = routed.parser, routed.sender
            is_echo = parser.ignores(topic)
            is_read = not is_echo and parser.reads(topic)
            is_lasting = sender is None or sender.is_known
            return Publication(routed=routed if is_read else None, is_unheard=is_echo, is_lasting=is_lasting)
        if topic.startswith("$") or not credential.rights.may_publish(topic):
            return None
        if credential.organization_id is not None and is_of_devices(topic):
            sender = self.sender(credential, topic)
            if sender is None:
                return None
            if is_telemetry(topic):
                return Publication(telemetry_of=sender, is_lasting=sender.is_known)
        return Publication(is_unheard=credential.rights.is_unheard(topic))

    def routed(self, credential: Credential, topic: str) -> Routed | None:
        """Return how a message on the topic is read, if a parser has been chosen for it and the client may publish it.

        A route gives no right to another device's topics, whether their form is ours or the parser knows it.
        """
        if credential.organization_id is None or credential.is_home_assistant:
            return None
        parser = self._routes.parser(credential.organization_id, topic)
        if parser is None:
            return None
        sender = credential.device
        speaker = parser.speaker(topic)
        if sender is not None and speaker is not None and speaker != sender.device_id:
            return None
        if is_of_devices(topic):
            if not credential.rights.may_publish(topic):
                return None
            sender = self.sender(credential, topic, is_read=parser.reads(topic))
            if sender is None:
                return None
        return Routed(parser, credential.organization_id, sender, self.devices)

    def sent_by(self, device: Device, parser: Parser) -> Routed:
        """Return how what a device sends by other ways than a topic is read."""
        return Routed(parser, device.organization_id, device, self.devices)

    def sent_within(self, organization_id: str, parser: Parser) -> Routed:
        """Return how what somebody of an organisation sends by other ways than a topic is read: it names its device."""
        return Routed(parser, organization_id, None, self.devices)

    def sent_for_itself(self, organization_id: str, parser: Parser, hardware_id: str) -> Routed:
        """Return how what somebody of an organisation sends is read who is known by a hardware id alone.

        It speaks for itself: for the device that has this hardware id, or is discovered with it.
        """
        return Routed(parser, organization_id, None, self.devices, hardware_id)

    async def refresh(self) -> None:
        """Read the state again; returns when every listener has dropped whoever has lost access."""
        async with self._refreshing:
            credentials = await self._credentials.all()
            devices = await self._state.devices()  # second: a credential's device is there before it
            self.devices.replace(devices)
            self._replace(credentials)
        for changed in self.on_change:
            await changed()

    def _replace(self, credentials: list[CredentialRow]) -> None:
        """Take over what was read; what has not changed stays the same object, as live connections hold it."""
        self.changes += 1
        old, self._by_username, self._by_hash = self._by_username, {}, {}
        for credential in credentials:
            device = self._device(credential)
            if device is None and credential.device_id is not None:
                continue  # it was moved between the two readings; the next refresh follows
            name = credential.username
            login = self._by_username[name] = self._login(credential, device, old.get(name))
            if name not in old:
                self._noted[name] = self._usage(login)
            self._by_hash.update(reversed(login.passwords))
        self._noted = {name: usage for name, usage in self._noted.items() if name in self._by_username}

    def _login(self, row: CredentialRow, device: Device | None, old: _Login | None) -> _Login:
        ends_ms = self._clock.monotonic_ms() + row.old_password_left_ms
        known: dict[bytes, Credential] = {}
        shown: Credential | None = None
        if old is None or (old.row.organization_id, old.row.device_id) != (row.organization_id, row.device_id):
            statistics = Statistics(row.last_connected_at_ms, row.connections, row.refused_logins, row.messages_in)
        else:
            known = dict(old.passwords)
            if old.row.created_at_ms == row.created_at_ms:
                shown = old.by_certificate
            statistics = old.passwords[0][1].statistics
            if old.row.old_password_hash == row.old_password_hash:  # what is in the state is of a while ago
                ends_ms = old.old_ends_ms
        hashes = [row.password_hash, *filter(None, [row.old_password_hash])]
        passwords = [(one, known.get(one) or self._credential(row, device, statistics)) for one in hashes]
        return _Login(row, passwords, ends_ms, shown or self._credential(row, device, statistics))

    def _credential(self, row: CredentialRow, device: Device | None, statistics: Statistics) -> Credential:
        listens = row.is_home_assistant
        rights = self._routes.rights_of(row.organization_id, row.device_id, is_home_assistant=listens)
        return Credential(row.username, row.organization_id, device, rights, statistics, listens)

    def _device(self, row: CredentialRow) -> Device | None:
        if row.organization_id is None or row.device_id is None:
            return None
        return self.devices.get(row.organization_id, row.device_id)

    # What is written behind the data path

    async def keep_written(self) -> None:
        """Write down what was learned, and end old passwords whose time is up, for ever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self.devices.seen_new.wait()
                    await asyncio.sleep(_GATHER_S)
            try:
                await self._end_old_passwords()
                await self.devices.write_down()
                if self._clock.monotonic_ms() - self._noted_at_ms >= _USAGE_EVERY_MS:
                    await self._note_usage()
            except StoreFailed as error:
                logger.error("not written, tried again later: %s", error)  # noqa: TRY400 - the error says it all
                await asyncio.sleep(_LOOK_EVERY_S)

    async def write_down(self) -> None:
        """Write down at once what was learned. Raises StoreFailed."""
        await self.devices.write_down()
        await self._note_usage()

    async def _note_usage(self) -> None:
        async with self._writing:
            self._noted_at_ms = self._clock.monotonic_ms()
            changed = []
            for name, login in self._by_username.items():
                usage = self._usage(login)
                if usage != self._noted.get(name):
                    changed.append(usage)
            if changed:
                await self._credentials.note(changed)
                self._noted.update((usage.username, usage) for usage in changed)

    def _usage(self, login: _Login) -> Usage:
        statistics, old = login.passwords[0][1].statistics, login.row.old_password_hash
        return Usage(
            login.row.username,
            statistics.last_connected_ms,
            statistics.connections,
            statistics.refused,
            statistics.messages_in,
            old,
            0 if old is None else max(0, login.old_ends_ms - self._clock.monotonic_ms()),
        )

    async def _end_old_passwords(self) -> None:
        now = self._clock.monotonic_ms()
        ended = [
            (name, login.row.old_password_hash)
            for name, login in self._by_username.items()
            if login.row.old_password_hash is not None and now >= login.old_ends_ms
        ]
        if ended:
            await self._credentials.end_old_passwords(ended)
            logger.info("old passwords ended", extra={"count": len(ended), "first": ended[0][0]})
            await self.refresh()
