"""Writes a bundle: a tar.gz that only its owner may read, whole or not there, without secrets.

Every text goes through `clean` on its way in: nothing else is written.
"""

import io
import os
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

from gateway.diag.contents import Item
from gateway.model.errors import ConfigError


def write_bundle(path: Path, items: Iterable[Item], clean: Callable[[str], str], *, at_s: int) -> list[Item]:
    """Write it, and return what is in it. `at_s` is the time of its files (unix s). Raises ConfigError."""
    cleaned = [Item(one.name, one.what, one.written(clean)) for one in items]
    inside = [_manifest(cleaned), *cleaned]
    root = path.name.removesuffix(".tar.gz")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError(f"{path} is there already.", hint="Name another with --output.") from None
    except OSError as error:
        raise _unwritable(path, error) from None
    try:
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for one in inside:
                data = one.content.encode(errors="replace")
                member = tarfile.TarInfo(f"{root}/{one.name}")
                member.size, member.mtime, member.mode = len(data), at_s, 0o600
                archive.addfile(member, io.BytesIO(data))
    except OSError as error:
        path.unlink()
        raise _unwritable(path, error) from None
    return inside


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path} cannot be written ({error.strerror}).", hint="Name another with --output.")


def _manifest(items: Iterable[Item]) -> Item:
    lines = [
        "What is in this bundle. Secrets are masked wherever they were found, and no reading or payload is in it.",
        "Look through it before you send it: these are plain texts.",
        "",
        *(f"{one.name:<18} {one.what}" for one in items),
    ]
    return Item("MANIFEST.txt", "this list", "\n".join(lines) + "\n")
