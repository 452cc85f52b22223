"""What may be changed from the gateway, and the way back: a board that does not reconnect takes its old ones again.

New settings are checked as a whole, written beside and renamed, and are on trial after the restart that follows. The
old ones stay until `keep`; `roll_back` takes them again and remembers which version it was, as the gateway says it
again with every connection.
"""

from app import files
from app.on_demand import forget


class Settings:
    """Those in force, kept in `path`; `path`.old are the ones before, while these are on trial."""

    def __init__(self, path):
        self.path = path
        self.old_path = path + ".old"
        self.refused_path = path + ".refused"
        self.refused = files.read_json(self.refused_path, {})
        """`version` and `reason` of the last that were not taken, or were taken back."""
        self.version = 0
        """Of those in force; 0: nobody has sent any."""
        self.is_on_trial = False
        from app.settings_start import start

        forget("app.settings_start")
        start(self)

    def tables(self):
        """Yield those in force: each table and its fields, of all names."""
        from app.settings_rules import tables

        forget("app.settings_rules")
        return tables(files.read_json(self.path, {}) if self.version else {})

    def offer(self, payload):
        """Take new ones; returns whether a restart is needed for them. What is wrong with them is in `refused`."""
        return _change().offer(self, payload)

    def refuse(self, version, reason):
        """Remember that a version is not taken, and why."""
        _change().refuse(self, version, reason)

    def keep(self):
        """These work."""
        if self.is_on_trial:
            self.is_on_trial = False
            files.remove(self.old_path)

    def roll_back(self, reason):
        """Take the old ones again; they are in force after a restart."""
        _change().roll_back(self, reason)


def check(wanted):
    """Raise ValueError, in words, if a board cannot be set to that."""
    from app.settings_check import check_each

    forget("app.settings_check")
    forget("app.settings_rules")
    gas = check_each(wanted)
    del check_each  # one after the other: each needs some KB
    if gas["fitted"]:
        from drivers.mq_curves import channel

        forget("drivers.mq_curves")
        channel(gas)


def _change():
    from app import settings_change

    forget("app.settings_change")
    return settings_change
