"""What may be changed from the gateway, and the way back: a board that does not reconnect takes its old ones again.

New settings are checked as a whole, written beside and renamed, and are on trial after the restart that follows. The
old ones stay until `keep`; `roll_back` takes them again and remembers which version it was, as the gateway says it
again with every connection.
"""

import json
import os

from drivers.mq import Channel

from app import files

_SENSITIVITIES = [0, 100]

RULES = {
    "readings.min_interval_ms": (500, 100, 60_000),
    "readings.heartbeat_s": (60, 1, 3_600),
    "connection.keepalive_s": (30, 5, 300),
    "connection.ntp_host": ("pool.ntp.org", 1, 100),
    "ld2410.fitted": (True,),
    "ld2410.dead_band_cm": (20, 1, 800),
    "ld2410.moving_gate": (None, 2, 8),
    "ld2410.stationary_gate": (None, 2, 8),
    "ld2410.nobody_s": (None, 0, 65_535),
    "ld2410.moving_sensitivity": (None, _SENSITIVITIES, 9),
    "ld2410.stationary_sensitivity": (None, _SENSITIVITIES, 9),
    "pir.fitted": (True,),
    "pir.warm_up_s": (60, 0, 600),
    "pir.debounce_ms": (50, 1, 5_000),
    "pir.hold_s": (5, 1, 3_600),
    "pir.stuck_s": (3_600, 60, 86_400),
    "mq134.fitted": (True,),
    "mq134.part": ("mq135", 1, 20),
    "mq134.gas": ("nh3", 1, 20),
    "mq134.preheat_s": (180, 0, 3_600),
    "mq134.load_ohm": (1_000, 1, 1_000_000),
    "mq134.supply_mv": (5_000, 1_000, 24_000),
    "mq134.divider_top_ohm": (None, 0, 1_000_000),
    "mq134.divider_bottom_ohm": (None, 1, 1_000_000),
    "mq134.a": (None, 0.0, 1e9),
    "mq134.b": (None, -100.0, 0.0),
    "mq134.ppm_min": (None, 0.0, 1e6),
    "mq134.ppm_max": (None, 0.0, 1e6),
    "mq134.clean_air_ratio": (None, 0.0, 1e3),
}
"""Name → (what it is if nobody says, least, most); a text's bounds are its length, a list's last is how many it has."""


def check(wanted):
    """Return the whole settings of which some are wanted to be different. Raises ValueError: one word is wrong."""
    _check_names(wanted)
    settings = {"version": wanted.get("version", 0)}
    for name, rule in RULES.items():
        table, _, field = name.partition(".")
        value = wanted.get(table, {}).get(field)
        if value is None:
            value = rule[0]
        else:
            _check_one(name, value, rule)
        fields = settings.setdefault(table, {})
        if value is not None:
            fields[field] = value
    if settings["mq134"]["fitted"]:
        Channel(settings["mq134"])
    return settings


def _check_names(wanted):
    for table, fields in wanted.items():
        if table == "version":
            if not _is_between(fields, 0, 1 << 53):
                raise ValueError("version must be a whole number")
        elif not isinstance(fields, dict):
            raise ValueError("%s must be an object" % table)
        else:
            for field in fields:
                if "%s.%s" % (table, field) not in RULES:
                    raise ValueError("%s.%s is no setting" % (table, field))


def _check_one(name, value, rule):
    if len(rule) == 1:
        good = isinstance(value, bool)
        words = "true or false"
    elif isinstance(rule[1], list):
        least, most = rule[1]
        good = isinstance(value, list) and len(value) == rule[2]
        good = good and all(_is_between(one, least, most) for one in value)
        words = "%d whole numbers from %d to %d" % (rule[2], least, most)
    elif isinstance(rule[0], str):
        good = isinstance(value, str) and rule[1] <= len(value) <= rule[2]
        words = "a text of %d to %d characters" % rule[1:]
    elif isinstance(rule[1], float):
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and rule[1] <= value <= rule[2]
        words = "a number from %s to %s" % rule[1:]
    else:
        good = _is_between(value, rule[1], rule[2])
        words = "a whole number from %d to %d" % rule[1:]
    if not good:
        raise ValueError("%s must be %s" % (name, words))


def _is_between(value, least, most):
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _object(payload):
    """Return the configuration in a message. Raises ValueError."""
    try:
        wanted = json.loads(payload)
    except ValueError:
        raise ValueError("the configuration is no JSON") from None
    if not isinstance(wanted, dict) or not _is_between(wanted.get("version"), 1, 1 << 53):
        raise ValueError("the configuration must be an object with a version above 0")
    return wanted


class Settings:
    """Those in force, kept in `path`; `path`.old are the ones before, while these are on trial."""

    def __init__(self, path):
        self._path = path
        self._old = path + ".old"
        self._refused_path = path + ".refused"
        self.refused = files.read_json(self._refused_path, {})
        """`version` and `reason` of the last that were not taken, or were taken back."""
        self.now = self._read(path)
        if self.now is None:
            self.now = self._read(self._old) or check({})
        old = self._read(self._old)
        if old is not None and old["version"] == self.version:
            files.remove(self._old)  # the power went before the new ones were written
        self.is_on_trial = files.exists(self._old)

    def _read(self, path):
        stored = files.read_json(path)
        try:
            return None if stored is None else check(stored)
        except ValueError as error:
            print("settings: %s:" % path, error)
            return None

    @property
    def version(self):
        """Of those in force; 0: nobody has sent any."""
        return self.now["version"]

    def offer(self, payload):
        """Take new ones; returns whether a restart is needed for them. What is wrong with them is in `refused`."""
        version = None
        try:
            wanted = _object(payload)
            version = wanted.get("version")
            if version in {self.version, self.refused.get("version")}:
                return False
            check(wanted)
            self._write(wanted)
        except (ValueError, OSError) as error:
            self.refuse(version, str(error))
            return False
        return True

    def _write(self, wanted):
        if not self.is_on_trial:  # of several in a row, those that are known to work are kept
            files.write_json(self._old, self.now)
        files.write_json(self._path, wanted)

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
            files.remove(self._old)

    def roll_back(self, reason):
        """Take the old ones again; they are in force after a restart."""
        self.refuse(self.version, reason)
        os.rename(self._old, self._path)
        self.is_on_trial = False
