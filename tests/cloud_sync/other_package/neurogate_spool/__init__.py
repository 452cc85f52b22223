"""Put batches of readings into a folder, one file each: an integration of a package that is not neurogate's."""

import asyncio
import json
from pathlib import Path

from pydantic import Field

from cloud_sync.contract import Batch, Forwards, Integration, IntegrationConfig, NotConnected, Ok, Outcome, Tests
from cloud_sync.egress import Egress
from gateway.clock import Clock
from gateway.model.finding import Finding, broken, fine


class Spool(Integration, Forwards, Tests):
    """Put batches of readings into a folder, one file each."""

    type = "spool"

    class Config(IntegrationConfig):
        """Settings of a spool."""

        folder: Path = Field(description="Where the files go.")

    def __init__(self, config: Config, clock: Clock, egress: Egress) -> None:
        super().__init__(config, clock, egress)
        self._folder = config.folder

    def encode(self, batch: Batch) -> bytes:
        """Return the file's content: a reading a line."""
        return b"".join(json.dumps([one.row, one.device_id, one.body]).encode() + b"\n" for one in batch.readings)

    async def send(self, batch: Batch, body: bytes) -> Outcome:
        """Write it under its id, so that a retry writes the same file."""
        try:
            await asyncio.to_thread((self._folder / batch.id).write_bytes, body)
        except OSError as error:
            return NotConnected(f"the folder cannot be written ({error.strerror})")
        return Ok()

    async def check(self) -> list[Finding]:
        """Look whether the folder is there."""
        if await asyncio.to_thread(self._folder.is_dir):
            return [fine("The folder is there.")]
        return [broken("The folder is not there.", "Make it.")]
