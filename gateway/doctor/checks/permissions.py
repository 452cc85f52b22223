"""Whether secrets and readings are open to others of this machine, and everything is the gateway's own."""

import os
import re
import stat
from collections.abc import Iterator

from gateway.daemon_thread import in_daemon_thread
from gateway.doctor.evidence import Evidence
from gateway.model.finding import Finding, broken, fine, warning
from gateway.shown_config import secret_settings
from gateway.storage.data_dir import DataDir

_OTHERS = 0o077
_WRITABLE = 0o022
_FROM_FILE = re.compile(r"\$\{file:([^}]+)\}")


async def permissions(evidence: Evidence) -> list[Finding]:
    """Look at the modes and owners of files; at no content."""
    found = await in_daemon_thread(lambda: [*_data_dir(evidence.data_dir), *_config(evidence)])
    return found or [fine("Data directory, keys and configuration are the gateway's alone.")]


def _data_dir(data_dir: DataDir) -> Iterator[Finding]:
    folder = data_dir.path
    if not folder.exists():
        return
    about = folder.stat()
    if about.st_mode & _WRITABLE:
        yield broken(f"Others may write to {folder}.", f"Run: chmod 700 {folder}")
    try:
        paths = sorted(folder.iterdir())
    except PermissionError:
        words = f"This user may not look into {folder}, so what is in it was not looked at."
        yield warning(words, f"Run this as the gateway's user: sudo -u {data_dir.owner} neurogate doctor")
        return
    for path in paths:
        try:
            file = path.lstat()
        except OSError:
            continue
        if file.st_uid != about.st_uid:
            words = f"{path} belongs to another user than the data directory: the gateway cannot write to it."
            yield broken(words, f"Run: sudo chown --reference={folder} {path}")
        if not stat.S_ISREG(file.st_mode) or not file.st_mode & _OTHERS:
            continue
        if path.suffix == ".key":
            words = (
                f"Others may read {path} (mode {stat.S_IMODE(file.st_mode):04o}): the gateway does not start with it."
            )
            yield broken(words, f"Run: chmod 600 {path}")
        elif ".db" in path.name or path.name.endswith(".json"):
            yield warning(f"Others may read {path}: whether somebody is at home is in it.", f"Run: chmod 600 {path}")


def _config(evidence: Evidence) -> Iterator[Finding]:
    path = evidence.loaded.path
    if path is None:
        return
    mode = path.stat().st_mode
    secrets = secret_settings(evidence.loaded)
    written = sorted(key for key, _, origin in secrets if origin.startswith("file ") and "${" not in origin)
    if mode & stat.S_IWOTH:
        yield broken(f"Everybody may write to {path}.", f"Run: chmod 600 {path}")
    elif written and mode & _OTHERS:
        words = f"Others may read {path}, and {written[0]} stands in it."
        yield broken(words, f"Run: chmod 600 {path}, or write ${{env:NAME}} or ${{file:/path}} there instead.")
    folder = path.parent
    for name in sorted({name for _, _, origin in secrets for name in _FROM_FILE.findall(origin)}):
        file = folder / name
        if file.exists() and file.stat().st_mode & _OTHERS:
            yield warning(f"Others may read {file}, which holds a secret.", f"Run: chmod 600 {file}")
        elif file.exists() and not os.access(file, os.R_OK):
            yield broken(f"This user may not read {file}.", "Give it to the gateway's user: chown.")
