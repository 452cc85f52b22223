"""Modules that are needed for a moment only: imported where they are used, and taken out of memory after it.

No such module defines an exception that others catch: read again, it would be another one.
"""

import sys


def forget(name):
    """Let go of a module, as `app.x`; it is read from the flash again when it is imported the next time."""
    if sys.modules.pop(name, None) is not None:
        package, module = name.split(".")
        if hasattr(sys.modules[package], module):
            delattr(sys.modules[package], module)
