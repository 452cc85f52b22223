"""`python -m cloud_sync.receiver --port 0 --secret-file PATH [--record FILE.jsonl]`."""

import asyncio
import json
import signal
import sys
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from pathlib import Path

from aiohttp import web

from cloud_sync.receiver.server import Receiver
from gateway.clock import SystemClock


async def serve(receiver: Receiver, port: int) -> None:
    """Listen on 127.0.0.1, say where in a JSON line, and serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(receiver.app(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        sys.stdout.write(json.dumps({"listening": runner.addresses[0][1]}) + "\n")
        sys.stdout.flush()
        await stop.wait()
    finally:
        await runner.cleanup()


def main() -> None:
    """Run the receiver."""
    options = _options()
    secret = options.secret_file.read_text(encoding="utf-8").strip()
    with ExitStack() as stack:
        record = stack.enter_context(options.record.open("ab")) if options.record else None
        asyncio.run(serve(Receiver(secret, SystemClock(), record), options.port))


def _options() -> Namespace:
    parser = ArgumentParser(prog="python -m cloud_sync.receiver", description="Receive signed webhooks, for tests.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--secret-file", type=Path, required=True, help="the secret the gateway signs with")
    parser.add_argument("--record", type=Path, help="append a JSON line for each request")
    return parser.parse_args()


if __name__ == "__main__":
    main()
