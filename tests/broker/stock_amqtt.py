"""amqtt as it comes, in a process of its own: what the front door is compared with.

Only plugins that it cannot do without are added: one that knows one username and password, and one that keeps this
client to the topics of its device.
"""

import asyncio
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Self

from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from amqtt.session import Session
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from gateway.storage.state import DeviceCredential
from tests.ports import free_port

HERE = "tests.broker.stock_amqtt"
KITCHEN = DeviceCredential("default", "kitchen", "default/kitchen", "a password of the kitchen's")
GRACE_S = 20


class OnlyKitchen(BaseAuthPlugin):
    """Lets in who has the password."""

    async def authenticate(self, *, session: Session) -> bool:
        return (session.username, session.password) == (KITCHEN.username, KITCHEN.password)


class ItsOwnTopics(BaseTopicPlugin):
    """Keeps everybody to the topics of the kitchen."""

    async def topic_filtering(
        self,
        *,
        session: Session | None = None,  # noqa: ARG002 - amqtt passes it
        topic: str | None = None,
        action: Action | None = None,  # noqa: ARG002 - amqtt passes it
    ) -> bool:
        return topic is not None and topic.startswith("devices/kitchen/")


class StockAmqtt:
    """One that can be started, killed, and started again on the same port."""

    def __init__(self, *, max_connections: int = 0, passwords: Path | None = None) -> None:
        """With `passwords` amqtt's own FileAuthPlugin looks there for the kitchen's."""
        self.port = free_port()
        self._max_connections = max_connections
        self._passwords = passwords
        self._process: subprocess.Popen[bytes] | None = None
        if passwords is not None:
            hashed = PasswordHash((Argon2Hasher(),)).hash(KITCHEN.password)
            passwords.write_text(f"{KITCHEN.username}:{hashed}\n", "utf-8")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        asked = json.dumps([self.port, self._max_connections, str(self._passwords or "")])
        self._process = subprocess.Popen([sys.executable, "-m", HERE, asked], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.communicate(timeout=GRACE_S)


async def _serve(port: int, max_connections: int, passwords: str) -> None:
    logging.disable()
    plugins: dict[str, dict[str, str]] = {f"{HERE}.ItsOwnTopics": {}}
    if passwords:
        plugins["amqtt.plugins.authentication.FileAuthPlugin"] = {"password_file": passwords}
    else:
        plugins[f"{HERE}.OnlyKitchen"] = {}
    listener = {"type": "tcp", "bind": f"127.0.0.1:{port}", "max_connections": max_connections}
    broker = Broker({"listeners": {"default": listener}, "plugins": plugins})
    await broker.start()
    os.write(1, b"ready\n")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(*json.loads(sys.argv[1])))
