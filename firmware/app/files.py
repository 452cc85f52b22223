"""Small files that are either the old or the new one, whenever the power goes: written beside and renamed over."""

import json
import os


def exists(path):
    """Whether there is such a file or folder."""
    try:
        os.stat(path)
    except OSError:
        return False
    return True


def remove(path):
    """Remove a file that may not be there."""
    try:
        os.remove(path)
    except OSError:
        pass


def read_json(path, otherwise=None):
    """Return the object in a file; `otherwise` when there is none, or nothing that is one."""
    try:
        with open(path) as file:
            value = json.load(file)
    except (OSError, ValueError):
        return otherwise
    return value if isinstance(value, dict) else otherwise


def write_json(path, value):
    """Replace a file by this object. Raises OSError, and leaves the old one then."""
    with open(path + ".new", "w") as file:
        json.dump(value, file)
    os.rename(path + ".new", path)
