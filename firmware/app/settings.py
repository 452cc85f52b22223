"""What may be changed from the gateway, and the way back: a board that does not reconnect takes its old ones again.

New settings are checked as a whole, written beside and renamed, and are on trial after the restart that follows. The
old ones stay until `keep`; `roll_back` takes them again and remembers which version it was, as the gateway says it
again with every connection.
"""

import os

from app import files
from app.on_demand import forget


def check(wanted):
    """Raise ValueError, in words, if a board cannot be set to that."""
    from app.settings_check import check_each

    forget("app.settings_check")
    forget("app.settings_rules")
    check_each(wanted)
    del check_each  # one after the other: each needs some KB
    gas = dict(_tables(wanted))["mq134"]
    if gas["fitted"]:
        from drivers.mq_curves import channel

        forget("drivers.mq_curves")
        channel(gas)


def _tables(wanted):
    from app.settings_rules import tables

    forget("app.settings_rules")
    return tables(wanted)


def _is_good(path):
    """Whether a file holds settings that a board can be set to."""
    stored = files.read_json(path)
    try:
        if stored is not None:
            check(stored)
    except ValueError as error:
        print("settings: %s:" % path, error)
        return False
    return stored is not None


class Settings:
    """Those in force, kept in `path`; `path`.old are the ones before, while these are on trial."""

    def __init__(self, path):
        self.path = path
        self.old_path = path + ".old"
        self._refused_path = path + ".refused"
        self.refused = files.read_json(self._refused_path, {})
        """`version` and `reason` of the last that were not taken, or were taken back."""
        self._is_good = _is_good(path)
        if not self._is_good and _is_good(self.old_path):
            os.rename(self.old_path, path)
            self._is_good = True
        self.version = self._stored().get("version", 0)
        """Of those in force; 0: nobody has sent any."""
        old = files.read_json(self.old_path)
        if old is not None and old.get("version", 0) == self.version:
            files.remove(self.old_path)  # the power went before the new ones were written
        self.is_on_trial = files.exists(self.old_path)

    def _stored(self):
        return files.read_json(self.path, {}) if self._is_good else {}

    def tables(self):
        """Yield those in force: each table and its fields, of all names."""
        return _tables(self._stored())

    def offer(self, payload):
        """Take new ones; returns whether a restart is needed for them. What is wrong with them is in `refused`."""
        from app.settings_offer import offer

        forget("app.settings_offer")
        return offer(self, payload)

    def refuse(self, version, reason):
        """Remember that a version is not taken, and why."""
        refused = {"version": version, "reason": reason}
        if refused != self.refused:
            self.refused = refused
            try:
                files.write_json(self._refused_path, refused)
            except OSError as error:
                print("settings:", error)

    def keep(self):
        """These work."""
        if self.is_on_trial:
            self.is_on_trial = False
            files.remove(self.old_path)

    def roll_back(self, reason):
        """Take the old ones again; they are in force after a restart."""
        self.refuse(self.version, reason)
        os.rename(self.old_path, self.path)
        self.is_on_trial = False
