"""What may be changed from the gateway, and the way back: a board that does not reconnect takes its old ones again.

New settings are checked as a whole, written beside and renamed, and are on trial after the restart that follows. The
old ones stay until `keep`; `roll_back` takes them again and remembers which version it was, as the gateway says it
again with every connection.
"""

import os

from app import files
from app.on_demand import forget


def _read(path):
    """Return the whole settings of a file, None if there are none, or no good ones."""
    from app.settings_check import check

    stored = files.read_json(path)
    try:
        return None if stored is None else check(stored)
    except ValueError as error:
        print("settings: %s:" % path, error)
        return None
    finally:
        _forget()


def _default():
    from app.settings_check import check

    _forget()
    return check({})


def _forget():
    forget("app.settings_check")
    forget("drivers.mq_curves")


class Settings:
    """Those in force, kept in `path`; `path`.old are the ones before, while these are on trial."""

    def __init__(self, path):
        self.path = path
        self.old_path = path + ".old"
        self._refused_path = path + ".refused"
        self.refused = files.read_json(self._refused_path, {})
        """`version` and `reason` of the last that were not taken, or were taken back."""
        self.version = self.read()["version"]
        """Of those in force; 0: nobody has sent any."""
        old = files.read_json(self.old_path)
        if old is not None and old.get("version") == self.version:
            files.remove(self.old_path)  # the power went before the new ones were written
        self.is_on_trial = files.exists(self.old_path)

    def read(self):
        """Return those in force, of all names."""
        return _read(self.path) or _read(self.old_path) or _default()

    def offer(self, payload):
        """Take new ones; returns whether a restart is needed for them. What is wrong with them is in `refused`."""
        from app.settings_offer import offer

        try:
            return offer(self, payload)
        finally:  # only now: it is used within, and would be there twice
            _forget()
            forget("app.settings_offer")

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
