"""What each release has written to disk, kept for ever: every later one must be able to go on with it."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

RELEASES = sorted(path for path in Path(__file__).parent.iterdir() if (path / "known.json").exists())


def known(release: Path) -> dict[str, Any]:
    """Return what was written down beside the databases."""
    found: dict[str, Any] = json.loads((release / "known.json").read_text("utf-8"))
    return found


def bring_back(release: Path, database: str, path: Path) -> None:
    """Make `log` or `state` as the release left it."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript((release / f"{database}.sql").read_text("utf-8"))
