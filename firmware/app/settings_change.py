"""Settings that become others, by a message, and back. In memory only meanwhile; see Settings."""

import json
import os

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
        refuse(settings, version, reason)
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


def refuse(settings, version, reason):
    """Remember that a version is not taken, and why."""
    refused = {"version": version, "reason": reason}
    if refused != settings.refused:
        settings.refused = refused
        try:
            files.write_json(settings.refused_path, refused)
        except OSError as error:
            print("settings:", error)


def roll_back(settings, reason):
    """Take the old ones again."""
    refuse(settings, settings.version, reason)
    os.rename(settings.old_path, settings.path)
    settings.is_on_trial = False
