"""How a command asks the running gateway: over its control socket, and every wait has a bound."""

import functools
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Concatenate, ParamSpec, TypeVar

import aiohttp

from gateway.cli.gateway_link import Gateway, silent
from gateway.model.errors import GatewaySilent, error_from_document
from gateway.operations.call import ERROR_LINE, Operation
from gateway.operations.site import Site
from gateway.storage.data_dir import DataDir

P = ParamSpec("P")
R = TypeVar("R")

_HTTP_OK = 200

_known = functools.cache(Operation)


class RunningGateway:
    """A gateway that runs."""

    is_live = True

    def __init__(self, data_dir: DataDir, session: aiohttp.ClientSession, patience_s: float) -> None:
        self._data_dir = data_dir
        self._session = session
        self._patience_s = patience_s

    @classmethod
    @asynccontextmanager
    async def open(cls, data_dir: DataDir, patience_s: float) -> AsyncIterator[Gateway]:
        """Connections are made when something is asked, so the short path is kept until the end."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=patience_s, sock_read=patience_s)
        with data_dir.short_control_socket() as path:
            connector = aiohttp.UnixConnector(path=path)
            async with aiohttp.ClientSession("http://gateway", connector=connector, timeout=timeout) as session:
                yield cls(data_dir, session, patience_s)

    async def call(
        self, operation: Callable[Concatenate[Site, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Ask it; see `gateway_link.Gateway`."""
        assert not args, "what an operation is asked has a name"
        known = _known(operation)
        async with self._post(known.name, known.encode_arguments(kwargs)) as answer:
            result: R = known.decode_answer(await answer.read())
            return result

    async def stream(
        self, operation: Callable[Concatenate[Site, P], AsyncGenerator[R, None]], *args: P.args, **kwargs: P.kwargs
    ) -> AsyncGenerator[R, None]:
        """Ask it; see `gateway_link.Gateway`."""
        assert not args, "what an operation is asked has a name"
        known = _known(operation)
        async with self._post(known.name, known.encode_arguments(kwargs)) as answer:
            rest: list[bytes] = []
            async for chunk in answer.content.iter_any():
                first, *more = chunk.split(b"\n")
                rest.append(first)
                for line in more:
                    if whole := b"".join(rest):
                        if whole.startswith(ERROR_LINE):
                            raise error_from_document(json.loads(whole))
                        yield known.decode_answer(whole)
                    rest = [line]

    @asynccontextmanager
    async def _post(self, name: str, arguments: bytes) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self._session.post(f"/{name}", data=arguments) as answer:
                if answer.status != _HTTP_OK:
                    raise error_from_document(await answer.json())
                yield answer
        except TimeoutError:
            raise silent(self._data_dir, self._patience_s) from None
        except aiohttp.ClientError:
            raise GatewaySilent(
                "The gateway ended before it had answered.", hint="See its log, then run the command again."
            ) from None
