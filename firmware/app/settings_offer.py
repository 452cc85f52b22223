"""New settings, from the message to the flash. In memory only meanwhile."""

import json

from app import files
from app.settings import check


def offer(settings, payload):
    """Return whether a restart is needed for them; see Settings.offer."""
    wanted, reason = _parse(payload)
    version = wanted.get("version")
    if version is not None and version in {settings.version, settings.refused.get("version")}:
        return False
    if not reason:
        try:
            if not files.exists(settings.old_path):  # of several in a row, those that are known to work are kept
                files.write_json(settings.old_path, files.read_json(settings.path, {}))
            files.write_json(settings.path, wanted)
        except OSError as error:
            reason = str(error)
    if reason:
        settings.refuse(version, reason)
    return not reason


def _parse(payload):
    """Return the configuration in a message, and what of it is wrong, if something is."""
    try:
        wanted = json.loads(payload)
    except ValueError:
        return {}, "the configuration is no JSON"
    version = wanted.get("version") if isinstance(wanted, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        return {}, "the configuration must be an object with a version above 0"
    try:
        check(wanted)
    except ValueError as error:
        return wanted, str(error)
    return wanted, ""
