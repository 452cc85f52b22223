"""How devices are told commands: as messages with QoS 1 on their own topics, when they are there to hear them."""

import asyncio
from collections.abc import Collection

from gateway.access import Access
from gateway.broker.door import Door
from gateway.broker.packets import Message
from gateway.clock import Clock
from gateway.commands import Commands
from gateway.metrics import Metrics
from gateway.model.command import Command
from gateway.model.errors import StoreFailed
from gateway.model.topics import command_topic
from gateway.storage.commands import Commands as Store
from gateway.storage.device_rows import device_username
from gateway.storage.state import State

_QOS = 1


class Boards:
    """See the module's own words."""

    def __init__(self, door: Door, access: Access) -> None:
        self._door = door
        self._access = access

    def is_listening(self, command: Command) -> bool:
        """Whether the device has subscribed and is connected; for one without access, whether a hub has.

        Others of the organisation may listen as well: they do not count where the device can come in itself.
        """
        organization_id, device_id, _ = command.key
        speaks_itself = self._access.is_known(device_username(organization_id, device_id))
        for session, _ in self._door.delivery.local.route(_local_topic(command.key)):
            connection = self._door.connection_of(session.client_id) if session.link is not None else None
            credential = None if connection is None else connection.credential
            if credential is None or credential.organization_id != organization_id:
                continue
            whose = credential.device
            if (whose is None and not speaks_itself) or (whose is not None and whose.device_id == device_id):
                return True
        return False

    async def tell(self, command: Command) -> None:
        """Tell a device; on return the message is on disk where it has to be. Raises StoreFailed."""
        on_disk: asyncio.Future[StoreFailed | None] = asyncio.get_running_loop().create_future()

        def done(error: StoreFailed | None) -> None:
            if not on_disk.done():
                on_disk.set_result(error)

        message = Message(_local_topic(command.key), command.payload(), _QOS, retain=False)
        if not self._door.delivery.take(message, done) and (error := await on_disk) is not None:
            raise error

    def withdraw(self, keys: Collection[tuple[str, str, str]]) -> None:
        """Take these out of every outbox."""
        topics = {_local_topic(key) for key in keys}
        for session in self._door.delivery.sessions:
            if topics and session.outbox is not None and len(session.outbox):
                session.outbox.give_up(topics.__contains__)


def _local_topic(key: tuple[str, str, str]) -> str:
    """Return a command's topic behind the door, below its organisation."""
    return f"{key[0]}/{command_topic(*key)}"


def commands_over(door: Door, access: Access, state: State, clock: Clock, metrics: Metrics) -> Commands:
    """Return the engine of commands, with the broker on its way to the devices and back."""
    commands = Commands(Store(state), Boards(door, access), clock, metrics)
    door.answers = commands
    door.before_opening.append(commands.open)
    door.delivery.subscriptions.on_hearing.append(commands.look_again)
    return commands
