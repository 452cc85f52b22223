"""How a command reaches the gateway: over its control socket while it runs, else it opens the store itself.

- a command is written once: it calls operations, and does not know which of the two it got
- the store is opened under the data directory's lock, so two commands, or a command and a starting gateway, never
  write at once
- every wait has a bound: a gateway that runs and does not answer is an error that says so, never a hanging command
"""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import aiohttp

from gateway.clock import Clock, SystemClock
from gateway.config import Settings
from gateway.metrics import Metrics
from gateway.model.errors import ConfigError, DataDirLocked, GatewaySilent, error_from_document
from gateway.operations import OPERATIONS
from gateway.operations.call import ERROR_LINE
from gateway.operations.site import Live, Site
from gateway.storage.activity_log import CLI
from gateway.storage.certificates import SiteCertificates
from gateway.storage.data_dir import DataDir, load_or_create_key
from gateway.storage.log import Log
from gateway.storage.log_reader import LogReader
from gateway.storage.log_schema import LOG_MIGRATIONS
from gateway.storage.migrations import migrate_file
from gateway.storage.organizations import Organizations
from gateway.storage.state import State

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE_S = 10.0
_TRY_AGAIN_S = 0.05
_HTTP_OK = 200


class Gateway(Protocol):
    """What a command gets: something to ask, as if it were a function call."""

    @property
    def is_live(self) -> bool:
        """Whether a gateway runs."""
        ...

    async def call(
        self, operation: Callable[Concatenate[Site, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Carry out an operation. Raises what it raises, and GatewaySilent."""
        ...

    def stream(
        self, operation: Callable[Concatenate[Site, P], AsyncGenerator[R, None]], *args: P.args, **kwargs: P.kwargs
    ) -> AsyncGenerator[R, None]:
        """Yield what an operation yields. Raises what it raises, and GatewaySilent."""
        ...


def ask(
    settings: Settings,
    operation: Callable[Concatenate[Site, P], Awaitable[R]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    """Carry out one operation: all that most commands do."""

    async def once() -> R:
        async with connect(settings) as gateway:
            return await gateway.call(operation, *args, **kwargs)

    return asyncio.run(once())


@asynccontextmanager
async def connect(settings: Settings, *, patience_s: float = PATIENCE_S) -> AsyncIterator[Gateway]:
    """Yield the running gateway, or the store under its lock. Raises GatewaySilent and ConfigError."""
    data_dir = DataDir(settings.gateway.data_dir)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_s
    async with AsyncExitStack() as stack:
        while True:
            if _is_listening(data_dir, patience_s):
                yield await stack.enter_async_context(_LiveGateway.open(data_dir, patience_s))
                return
            try:
                stack.enter_context(data_dir.lock())
                break
            except DataDirLocked:  # by a gateway that starts or stops, or by another command
                if loop.time() >= deadline:
                    raise _not_listening(data_dir) from None
            await asyncio.sleep(_TRY_AGAIN_S)  # neither a lock nor a socket that is to come can be awaited
        yield _Store(settings, data_dir, stack)


def _is_listening(data_dir: DataDir, patience_s: float) -> bool:
    """Whether some process listens on the control socket; that it also answers is not said."""
    try:
        with data_dir.short_control_socket() as path, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(patience_s)
            probe.connect(path)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return False
    except PermissionError:
        raise ConfigError(
            f"{data_dir.path} is not this user's.",
            hint=f"Run the command as the gateway's user: sudo -u {data_dir.owner} neurogate …",
        ) from None
    except OSError:  # its queue is full: nobody takes the connections
        raise _silent(data_dir, patience_s) from None
    return True


def _not_listening(data_dir: DataDir) -> GatewaySilent:
    return GatewaySilent(
        f"A process (pid {data_dir.holder}) uses {data_dir.path}, but does not listen on its control socket.",
        hint="If it is a gateway that starts or stops, wait; else its log says more, and restarting it helps.",
    )


def _silent(data_dir: DataDir, patience_s: float) -> GatewaySilent:
    pid = data_dir.holder
    return GatewaySilent(
        f"The gateway (pid {pid}) runs, but did not answer within {patience_s:g} s.",
        hint=f"See its log. If it hangs, restart it: kill -KILL {pid} loses no acknowledged reading.",
    )


class _LiveGateway:
    """The running gateway, over its control socket."""

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
        assert not args, "what an operation is asked has a name"
        known = OPERATIONS[operation.__name__]
        async with self._post(known.name, known.encode_arguments(kwargs)) as answer:
            result: R = known.decode_answer(await answer.read())
            return result

    async def stream(
        self, operation: Callable[Concatenate[Site, P], AsyncGenerator[R, None]], *args: P.args, **kwargs: P.kwargs
    ) -> AsyncGenerator[R, None]:
        assert not args, "what an operation is asked has a name"
        known = OPERATIONS[operation.__name__]
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
            raise _silent(self._data_dir, self._patience_s) from None
        except aiohttp.ClientError:
            raise GatewaySilent(
                "The gateway ended before it had answered.", hint="See its log, then run the command again."
            ) from None


class _Store:
    """The store itself, while no gateway runs and the lock is ours."""

    is_live = False
    live: Live | None = None
    actor = CLI

    def __init__(self, settings: Settings, data_dir: DataDir, stack: AsyncExitStack) -> None:
        self.settings = settings
        self.clock: Clock = SystemClock()
        self._data_dir = data_dir
        self._stack = stack
        self.certificates = SiteCertificates.of(settings, self.clock)
        self._state: State | None = None
        self._log: LogReader | None = None
        self._writable_log: Log | None = None

    async def call(
        self, operation: Callable[Concatenate[Site, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        return await operation(self, *args, **kwargs)

    async def stream(
        self, operation: Callable[Concatenate[Site, P], AsyncGenerator[R, None]], *args: P.args, **kwargs: P.kwargs
    ) -> AsyncGenerator[R, None]:
        async with aclosing(operation(self, *args, **kwargs)) as items:
            async for item in items:
                yield item

    async def state(self) -> State:
        if self._state is None:
            key = load_or_create_key(self._data_dir.password_key)
            opened = State.open(self._data_dir.state_db, key, clock=self.clock)
            state = await self._stack.enter_async_context(opened)
            await Organizations(state).ensure(self.settings.organizations)
            self._state = state
        return self._state

    async def log(self) -> LogReader:
        if self._log is None:
            if self._data_dir.log_db.exists():  # perhaps an older release wrote it, and no gateway has run since
                await asyncio.to_thread(migrate_file, self._data_dir.log_db, LOG_MIGRATIONS)
            self._log = await self._stack.enter_async_context(LogReader.open(self._data_dir.log_db))
        return self._log

    async def writable_log(self) -> Log:
        if self._writable_log is None:
            await self.log()  # raises when there is none: a command makes no empty one
            opened = Log.create(self._data_dir.log_db, self.settings.storage, clock=self.clock, metrics=Metrics())
            self._writable_log = await self._stack.enter_async_context(opened)
        return self._writable_log
