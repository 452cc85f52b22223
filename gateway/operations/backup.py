"""A copy of both databases, for a backup. Encrypting and keeping it is the business of whoever asks."""

import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing

from gateway.operations.site import Site
from gateway.storage.snapshot import SnapshotStep, snapshot


async def take_snapshot(site: Site) -> AsyncGenerator[SnapshotStep, None]:
    """Yield how far the copy is; the last says where it lies, until the stream is closed. Raises NotFound."""
    log, state, settings = await site.writable_log(), await site.state(), site.settings
    steps = snapshot(log, state, settings.gateway.data_dir, settings.storage.min_free_bytes)
    async with aclosing(steps):
        async for step in steps:
            yield step
            if step.folder is not None and site.live is not None:
                await site.live.wait_beyond(sys.maxsize)  # keep it until whoever asked goes, or the gateway stops
