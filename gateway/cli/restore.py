"""`neurogate restore`: a backup becomes a gateway again, whole or not at all.

Everything is decrypted and checked in a folder beside the data directory, which then takes its name.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from gateway.cli.backup import CONFIG_NAME, FILE_NAME, LENGTH_BYTES, Manifest
from gateway.cli.passphrase import PassphraseFile, passphrase
from gateway.cli.progress import ProgressShown
from gateway.model.errors import AlreadyExists, BadInput, SchemaTooNew
from gateway.storage.data_dir import DataDir
from gateway.storage.disk import sync_folder
from gateway.storage.log_reader import STILL_SALVAGED
from gateway.storage.log_schema import LOG_MIGRATIONS
from gateway.storage.sealed import CHUNK, SealedReader
from gateway.storage.state_schema import STATE_MIGRATIONS

_MANIFEST_BYTES = 1_000_000
_AHEAD_ROWS = 1_000_000_000
"""The old gateway went on counting after the backup. New readings must not get the ids of those it has sent."""

_JUMP = "UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'device_telemetry_history'"
_BEGIN_BEYOND = "INSERT INTO sqlite_sequence (seq, name) VALUES (?, 'device_telemetry_history')"
"""For a log that has never held a reading: SQLite notes nothing of it yet."""


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What neurogate backup wrote.")],
    config: Annotated[
        Path, typer.Option("--config", "-c", help="Where the configuration goes; one that is there must be the same.")
    ] = Path(CONFIG_NAME),
    data_dir: Annotated[
        Path | None, typer.Option(help="An empty folder, or none yet.", show_default="as in the configuration")
    ] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Put a backup into an empty data directory."""
    try:
        source = file.open("rb")
    except OSError as error:
        raise BadInput("unusable_file", f"{file} cannot be read ({error.strerror}).") from None
    with source:
        sealed = SealedReader.open(source, passphrase(passphrase_file, twice=False))
        manifest = _manifest(sealed)
        target = (data_dir or config.parent / manifest.data_dir).absolute()
        _refuse_used(target)
        with _staging(target) as staging:
            _unpack(sealed, manifest, staging)
            _check(DataDir(staging))
            _put_in_place(staging, target, config)
    print(f"Restored {manifest.gateway_id} into {target}, with the configuration {config}.")
    if data_dir is not None:
        print(f'Have gateway.data_dir in it say "{target}".')
    print("Never let two gateways run from one backup: the old one must not start again.")


def _manifest(sealed: SealedReader) -> Manifest:
    length = int.from_bytes(sealed.read(LENGTH_BYTES), "big")
    try:
        manifest = Manifest.model_validate_json(sealed.read(min(length, _MANIFEST_BYTES)))
    except ValidationError:
        raise _unknown_content() from None
    names = [one.name for one in manifest.files]
    if len(set(names)) < len(names) or not all(FILE_NAME.fullmatch(name) for name in names):
        raise _unknown_content()
    return manifest


def _unknown_content() -> BadInput:
    return BadInput("backup_too_new", "The backup holds what is not known here.", hint="Install the newer release.")


def _refuse_used(target: Path) -> None:
    """Raise DataDirLocked or AlreadyExists, when somebody uses it or it is not empty."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        if DataDir(target).lock_file.exists():
            with DataDir(target).lock():
                pass
        raise AlreadyExists(f"{target} is not empty.", hint="Name another with --data-dir, or move it away first.")


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """Yield a new folder beside it, its owner's alone, that does not stay."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _unpack(sealed: SealedReader, manifest: Manifest, staging: Path) -> None:
    done, total = 0, sum(one.bytes for one in manifest.files)
    with ProgressShown("decrypt", "bytes") as shown:
        for one in manifest.files:
            with os.fdopen(os.open(staging / one.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                left = one.bytes
                while left:
                    content = sealed.read(min(left, CHUNK))
                    if not content:
                        raise _unknown_content()
                    file.write(content)
                    left -= len(content)
                    done += len(content)
                    shown.update(done, total)
        sealed.finish()


def _check(data_dir: DataDir) -> None:
    """Check both databases, and let new readings begin beyond every id that may have been given. Raises BadInput."""
    for path, migrations in ((data_dir.log_db, LOG_MIGRATIONS), (data_dir.state_db, STATE_MIGRATIONS)):
        try:
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None)) as db:
                (words,) = db.execute("PRAGMA quick_check(1)").fetchone()
                (version,) = db.execute("PRAGMA user_version").fetchone()
                if path == data_dir.log_db and words == "ok":
                    _require_whole(db)
                    _jump(db)
        except sqlite3.Error as error:
            words = str(error)
        if words != "ok":
            raise BadInput("damaged_backup", f"{path.name} in the backup is damaged: {words}.", hint="Use another.")
        if version > len(migrations):
            raise SchemaTooNew(f"{path.name} in the backup has schema {version}.", hint="Install the newer release.")


def _require_whole(db: sqlite3.Connection) -> None:
    for (file,) in db.execute(STILL_SALVAGED):
        raise BadInput(
            "incomplete_backup",
            f"When the backup was made, readings were still to come back from {file}: they are missing in it.",
            hint="Use another.",
        )


def _jump(db: sqlite3.Connection) -> None:
    if not db.execute(_JUMP, (_AHEAD_ROWS,)).rowcount:
        db.execute(_BEGIN_BEYOND, (_AHEAD_ROWS,))


def _put_in_place(staging: Path, target: Path, config: Path) -> None:
    restored = staging / CONFIG_NAME
    content = restored.read_bytes() if restored.exists() else None
    if content is not None:
        if config.exists() and config.read_bytes() != content:
            raise AlreadyExists(f"{config} is another one.", hint="Move it away first, or name another with --config.")
        restored.unlink()
    for path in staging.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(staging)
    try:
        staging.rename(target)  # over an empty folder, never over a used one
    except OSError as error:
        raise AlreadyExists(f"{target} is not empty any more ({error.strerror}).", hint="Name another.") from None
    sync_folder(target.parent)
    if content is not None and not config.exists():
        config.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
