"""The control socket: how the command line talks to a running gateway.

- a unix socket in the data directory, its owner's alone (0600): the file's permissions are the lock
- `POST /{operation}` with the arguments as a JSON object is answered with its result as JSON, or line by line where the
  operation is a stream; an empty line only says that the gateway is still there
- errors have the shape of the HTTP API: `{"error": {"code", "message", "hint"}}`
- a client that reads slowly holds up nothing but its own stream; nothing is kept for it

What can be asked is in `gateway/operations/`. The data directory's lock is held by whoever starts this, so a socket
file that exists is one that a killed gateway left.
"""

import asyncio
import json
import logging
import os
import socket
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any

from aiohttp import web

from gateway.model.errors import ConfigError, NeurogateError, NotFound, error_document
from gateway.operations.call import HEARTBEAT_S, Operation
from gateway.operations.site import Site
from gateway.storage.data_dir import DataDir

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SHUTDOWN_S = 2.0
_OWNER_ONLY = stat.S_IRUSR | stat.S_IWUSR


class ControlServer:
    """Answers operations on one site. `stop` may be called whether or not it was started."""

    def __init__(self, data_dir: DataDir, operations: Mapping[str, Operation], site: Site) -> None:
        self._data_dir = data_dir
        self._operations = operations
        self._site = site
        app = web.Application(middlewares=[_error_middleware])
        app.router.add_post("/{operation}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S)

    async def start(self) -> None:
        """Open the socket. Raises ConfigError when the data directory has no room for one."""
        try:
            listening = self._bind()
        except OSError as error:
            raise ConfigError(
                f"{self._data_dir.control_socket} cannot be made ({error.strerror}).",
                hint="Set gateway.data_dir to a folder on a local file system, of the gateway's user.",
            ) from error
        await self._runner.setup()
        await web.SockSite(self._runner, listening).start()

    def _bind(self) -> socket.socket:
        """Bind, then restrict, then (in `start`) listen: nobody connects to a socket that does not listen yet."""
        self._data_dir.control_socket.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with self._data_dir.short_control_socket() as path:
                listening.bind(path)
                os.chmod(path, _OWNER_ONLY)  # noqa: PTH101 - a path into /proc, not a file of ours
        except BaseException:
            listening.close()
            raise
        return listening

    async def stop(self) -> None:
        """Remove the socket; what is being answered has a moment to finish."""
        if self._runner.server is not None:
            self._data_dir.control_socket.unlink(missing_ok=True)
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        operation = self._operations.get(request.match_info["operation"])
        if operation is None:
            raise NotFound(
                f"The running gateway does not know {request.match_info['operation']}.",
                hint="It is of another version than this command: restart it.",
            )
        arguments = operation.decode_arguments(await request.read())
        if operation.is_stream:
            return await _stream(request, operation, operation.run(self._site, **arguments))
        answer = await operation.run(self._site, **arguments)
        return web.Response(body=operation.encode_answer(answer), content_type="application/json")


async def _stream(request: web.Request, operation: Operation, items: AsyncGenerator[Any, None]) -> web.StreamResponse:
    """Answer line by line. The next item is asked for when the client has taken the one before."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    async with aclosing(items):
        lines = _lines(operation, items)
        async with aclosing(lines):
            first = await anext(lines, b"")  # an error at the very start is an answer of its own
            with suppress(ConnectionError):  # whoever has seen enough just goes
                await response.prepare(request)
                await response.write(first)
                try:
                    async for line in lines:
                        await response.write(line)
                except NeurogateError as error:
                    await response.write(json.dumps(_document(error), separators=(",", ":")).encode() + b"\n")
                await response.write_eof()
    return response


async def _lines(operation: Operation, items: AsyncGenerator[Any, None]) -> AsyncGenerator[bytes, None]:
    """Yield each item as a line, and an empty line whenever there is none for a while."""
    end = object()
    while True:
        coming = asyncio.ensure_future(anext(items, end))
        try:
            while not (await asyncio.wait([coming], timeout=HEARTBEAT_S))[0]:
                yield b"\n"
        finally:
            if not coming.done():
                coming.cancel()
                await asyncio.wait([coming])
        if (item := coming.result()) is end:
            return
        yield operation.encode_answer(item) + b"\n"


def _document(error: NeurogateError) -> dict[str, Any]:
    return error_document(error.code, error.message, error.hint)


@web.middleware
async def _error_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except NeurogateError as error:
        return web.json_response(_document(error), status=error.http_status)
    except (web.HTTPException, ConnectionError):
        raise
    except Exception:
        logger.exception("operation failed by a fault of ours", extra={"path": request.path})
        words = error_document("internal_error", "The gateway failed to do this.", "See its log.")
        return web.json_response(words, status=500)
