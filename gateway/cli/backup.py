"""`neurogate backup`: everything a gateway is, in one encrypted file, taken while it runs.

In the file: a manifest (4 bytes length, then JSON), then the files that it names, one after the other.
"""

import asyncio
import json
import os
import re
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import IO, Annotated

import typer
from pydantic import BaseModel

from gateway import __version__
from gateway.cli.gateway_link import connect
from gateway.cli.options import ConfigFile
from gateway.cli.passphrase import PassphraseFile, passphrase
from gateway.cli.progress import ProgressShown
from gateway.config import LoadedConfig, load
from gateway.model.errors import BadInput, StoreFailed
from gateway.operations.backup import take_snapshot
from gateway.storage.data_dir import DataDir
from gateway.storage.disk import replacing
from gateway.storage.sealed import CHUNK, SealedWriter
from gateway.storage.vault_keys import KEY_FILES

CONFIG_NAME = "neurogate.toml"
LENGTH_BYTES = 4
FILE_NAME = re.compile(r"log\.db|state\.db|neurogate\.toml|[A-Za-z0-9][A-Za-z0-9_.-]*\.key")
"""What may be in a backup: a restored one makes files of these names, and no others."""


class BackedUpFile(BaseModel):
    """One file of a backup."""

    name: str
    bytes: int


class Manifest(BaseModel):
    """What a backup holds."""

    release: str
    gateway_id: str
    data_dir: str
    """As it is seen from the configuration file."""
    files: list[BackedUpFile]


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the backup goes; one that is there is replaced.")],
    passphrase_file: PassphraseFile = None,
    config: ConfigFile = None,
) -> None:
    """Write readings, devices, configuration and keys into one encrypted file."""
    loaded = load(config, os.environ)
    secret = passphrase(passphrase_file, twice=True)
    with ExitStack() as stack:
        try:
            target = stack.enter_context(replacing(file))
        except OSError as error:
            raise BadInput("unusable_file", f"{file} cannot be written ({error.strerror}).") from None
        sources = asyncio.run(_sources(loaded, stack))
        _write(target, secret, loaded, sources)
    print(f"Wrote {file} ({file.stat().st_size / 1e6:,.1f} MB). Without the passphrase it is worth nothing.")


async def _sources(loaded: LoadedConfig, stack: ExitStack) -> dict[str, IO[bytes]]:
    """Return what goes into the backup, open, so that the copies themselves need not stay."""
    keys = _keys(loaded.settings.gateway.data_dir)
    opened: dict[str, IO[bytes]] = {}
    with ProgressShown("copy", "pages") as shown:
        async with connect(loaded.settings) as gateway, aclosing(gateway.stream(take_snapshot)) as steps:
            async for step in steps:
                shown.update(step.pages, step.total)
                if step.folder is not None:
                    copies = DataDir(Path(step.folder))
                    paths = [copies.log_db, copies.state_db, *keys, *copies.path.glob(KEY_FILES)]
                    opened.update({path.name: stack.enter_context(path.open("rb")) for path in paths})
                    break
    if not opened:
        raise StoreFailed("The gateway stopped before the copy was made.", hint="Run it again.")
    if loaded.path is not None:
        opened[CONFIG_NAME] = stack.enter_context(loaded.path.open("rb"))
    return opened


def _keys(data_dir: Path) -> list[Path]:
    """Return the keys. Raises BadInput for one that `restore` would not take back."""
    vaults = set(data_dir.glob(KEY_FILES))  # these are copied with the state, or a rotation might come between
    keys = sorted(set(data_dir.glob("*.key")) - vaults)
    for key in keys:
        if not FILE_NAME.fullmatch(key.name):
            raise BadInput(
                "unusable_key_name",
                f"{key} cannot be part of a backup by this name.",
                hint="Use ASCII letters, digits, '_', '.' and '-'; or move it elsewhere, if it is not the gateway's.",
            )
    return keys


def _write(target: IO[bytes], secret: bytes, loaded: LoadedConfig, sources: dict[str, IO[bytes]]) -> None:
    settings = loaded.settings.gateway
    folder = loaded.path.parent.absolute() if loaded.path else Path.cwd()
    data_dir = settings.data_dir.relative_to(folder) if settings.data_dir.is_relative_to(folder) else settings.data_dir
    files = [BackedUpFile(name=name, bytes=os.fstat(one.fileno()).st_size) for name, one in sources.items()]
    manifest = Manifest(release=__version__, gateway_id=settings.id, data_dir=str(data_dir), files=files)
    words = json.dumps(manifest.model_dump()).encode()
    sealed = SealedWriter(target, secret)
    sealed.write(len(words).to_bytes(LENGTH_BYTES, "big") + words)
    done, total = 0, sum(one.bytes for one in files)
    with ProgressShown("encrypt", "bytes") as shown:
        for one in files:
            left = one.bytes
            while left:
                content = sources[one.name].read(min(left, CHUNK))
                if not content:
                    raise StoreFailed(f"{one.name} became shorter while it was read.", hint="Run it again.")
                sealed.write(content)
                left -= len(content)
                done += len(content)
                shown.update(done, total)
    sealed.finish()
