"""Modules that are needed for a moment only: imported where they are used, and taken out of memory after it."""

import sys

import app


def forget(name):
    """Let go of a module of this package; it is read from the flash again when it is imported the next time."""
    if sys.modules.pop("app." + name, None) is not None:
        delattr(app, name)
