"""A process that receives from a broker and is killed when the first messages are on disk and not acknowledged.

`python -m tests.inbound.killed FOLDER SETTINGS`, which are JSON.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from cloud_sync.integrations.mqtt_client.connection import Connection
from cloud_sync.integrations.mqtt_client.packets import Message
from cloud_sync.integrations.mqtt_external import MqttExternal
from gateway.clock import ManualClock
from tests.cloud_sync.samples import ANYWHERE
from tests.inbound.site import open_site
from tests.site import until


async def die(_: Connection, messages: Sequence[Message]) -> NoReturn:
    print(len(messages), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


async def main(folder: Path, settings: str) -> None:
    Connection.acknowledge = die  # type: ignore[assignment, method-assign]
    integration = MqttExternal(MqttExternal.Config.model_validate(json.loads(settings)), ManualClock(), ANYWHERE)
    async with open_site(folder) as site, site.receiving(integration) as inbound:
        await until(lambda: inbound.status().state == "receiving", "it receives", patience_s=30)
        print("receiving", flush=True)
        await asyncio.sleep(30)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
