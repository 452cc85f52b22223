"""amqtt by itself, as fast as it gets: `python -m tests.bench.stock_amqtt PORT`. Ends by SIGTERM."""

import asyncio
import logging
import signal
import sys

import uvloop
from amqtt.broker import Broker

_ANYBODY = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}


async def _run(port: int) -> None:
    ends = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ends.set)
    listener = {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}}
    await Broker({"listeners": listener, "plugins": _ANYBODY}).start()
    await ends.wait()  # its own way to stop waits for every client


if __name__ == "__main__":
    logging.disable()
    uvloop.run(_run(int(sys.argv[1])))
