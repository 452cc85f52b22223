"""Which settings are in force: never some that a board cannot be set to. In memory only at the start; see Settings."""

import os

from app import files
from app.settings import check


def start(settings):
    """Find out which are in force."""
    if not _is_good(settings.path):
        if not _is_good(settings.old_path):
            return
        os.rename(settings.old_path, settings.path)
    settings.version = files.read_json(settings.path, {}).get("version", 0)
    old = files.read_json(settings.old_path)
    if old is not None and old.get("version", 0) == settings.version:
        files.remove(settings.old_path)  # the power went before the new ones were written
    settings.is_on_trial = files.exists(settings.old_path)


def _is_good(path):
    """Whether a file holds settings that a board can be set to."""
    stored = files.read_json(path)
    try:
        if stored is not None:
            check(stored)
    except ValueError as error:
        print("settings: %s:" % path, error)
        return False
    return stored is not None and bool(stored.get("version"))
