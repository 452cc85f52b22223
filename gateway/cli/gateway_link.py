"""How a command reaches the gateway: over its control socket while it runs, else it opens the store itself.

- a command is written once: it calls operations, and does not know which of the two it got
- the store is opened under the data directory's lock, so two commands, or a command and a starting gateway, never
  write at once
- every wait has a bound: a gateway that runs and does not answer is an error that says so, never a hanging command
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeVar

from gateway.clock import Clock, SystemClock
from gateway.config import Settings
from gateway.model.errors import ConfigError, DataDirLocked, GatewaySilent
from gateway.operations.site import Live, Site
from gateway.storage.activity_log import CLI
from gateway.storage.data_dir import DataDir, load_or_create_key
from gateway.storage.log_reader import LogReader
from gateway.storage.log_schema import LOG_MIGRATIONS
from gateway.storage.migrations import migrate_file
from gateway.storage.organizations import Organizations
from gateway.storage.state import State

if TYPE_CHECKING:
    from gateway.storage.certificates import SiteCertificates
    from gateway.storage.log import Log

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE_S = 10.0
_TRY_AGAIN_S = 0.05


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
    /,
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
                from gateway.cli.running_gateway import RunningGateway  # noqa: PLC0415 - aiohttp takes its time

                yield await stack.enter_async_context(RunningGateway.open(data_dir, patience_s))
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
        raise silent(data_dir, patience_s) from None
    return True


def _not_listening(data_dir: DataDir) -> GatewaySilent:
    return GatewaySilent(
        f"A process (pid {data_dir.holder}) uses {data_dir.path}, but does not listen on its control socket.",
        hint="If it is a gateway that starts or stops, wait; else its log says more, and restarting it helps.",
    )


def silent(data_dir: DataDir, patience_s: float) -> GatewaySilent:
    """Return the error of a gateway that runs and says nothing."""
    pid = data_dir.holder
    return GatewaySilent(
        f"The gateway (pid {pid}) runs, but did not answer within {patience_s:g} s.",
        hint=f"See its log. If it hangs, restart it: kill -KILL {pid} loses no acknowledged reading.",
    )


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
        self._state: State | None = None
        self._log: LogReader | None = None
        self._writable_log: Log | None = None

    @cached_property
    def certificates(self) -> "SiteCertificates":
        from gateway.storage.certificates import SiteCertificates  # noqa: PLC0415 - cryptography takes its time

        return SiteCertificates.of(self.settings, self.clock)

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

    async def writable_log(self) -> "Log":
        from gateway.metrics import Metrics  # noqa: PLC0415 - few commands write, and what it takes, takes its time
        from gateway.storage.log import Log  # noqa: PLC0415 - the same

        if self._writable_log is None:
            await self.log()  # raises when there is none: a command makes no empty one
            opened = Log.create(self._data_dir.log_db, self.settings.storage, clock=self.clock, metrics=Metrics())
            self._writable_log = await self._stack.enter_async_context(opened)
        return self._writable_log
