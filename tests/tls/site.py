"""A whole gateway with TLS on free ports; its clock stands at the present, which real clients compare with."""

import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.clock import ManualClock
from gateway.model.errors import PortInUse
from gateway.operations.certificates import show_certificates
from tests.ports import free_port
from tests.site import Site, running_site


def present() -> ManualClock:
    return ManualClock(time.time_ns() // 1_000_000)


@asynccontextmanager
async def tls_site(folder: Path, *, mqtt: Mapping[str, Any] | None = None, **tls: Any) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        for attempts_left in reversed(range(5)):
            starting = running_site(
                folder / "data",
                clock=present(),
                mqtt={"tls_port": free_port(), "websocket_tls_port": free_port()} | dict(mqtt or {}),
                http={"tls_port": free_port()},
                tls=tls,
            )
            try:
                site = await stack.enter_async_context(starting)
                break
            except PortInUse:  # another test has just taken one that was free: 0 would open none
                if not attempts_left:
                    raise
        (folder / "ca.pem").write_text(await authorities(site))
        yield site


async def authorities(site: Site) -> str:
    known = await site.command(show_certificates)
    return "".join(one.pem for one in known if one.role != "server")


def trusting(folder: Path, certificate: Path | None = None) -> ssl.SSLContext:
    """Return a client's side."""
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    if certificate is not None:
        context.load_cert_chain(certificate)
    return context
