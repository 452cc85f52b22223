"""Settings that become others: at the start, by a message, and back. In memory only meanwhile; see Settings."""

import json
import os

from app import files
from app.on_demand import forget


def start(settings):
    """Find out which are in force: never some that a board cannot be set to."""
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


def check(wanted):
    """Raise ValueError, in words, if a board cannot be set to that."""
    from app.settings_check import check_each
    from app.settings_rules import tables

    forget("app.settings_check")
    forget("app.settings_rules")
    check_each(wanted)
    del check_each  # one after the other: each needs some KB
    gas = dict(tables(wanted))["mq134"]
    del tables
    if gas["fitted"]:
        from drivers.mq_curves import channel

        forget("drivers.mq_curves")
        channel(gas)


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
