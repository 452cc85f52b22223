"""What a board can be set to. Read at the start and when new settings come, and taken out of memory again."""

import json

from micropython import const

_RULES = {
    "readings": """min_interval_ms int 100 60000 500
heartbeat_s int 1 3600 60""",
    "connection": """keepalive_s int 5 300 30
ntp_host text 1 100 pool.ntp.org""",
    "ld2410": """fitted bool 0 1 true
dead_band_cm int 1 800 20
moving_gate int 2 8
stationary_gate int 2 8
nobody_s int 0 65535
moving_sensitivity list 0 100
stationary_sensitivity list 0 100""",
    "pir": """fitted bool 0 1 true
warm_up_s int 0 600 60
debounce_ms int 1 5000 50
hold_s int 1 3600 5
stuck_s int 60 86400 3600""",
    "mq134": """fitted bool 0 1 true
part text 1 20 mq135
gas text 1 20 nh3
preheat_s int 0 3600 180
load_ohm int 1 1000000 1000
supply_mv int 1000 24000 5000
divider_top_ohm int 0 1000000
divider_bottom_ohm int 1 1000000
a real 0 1000000
b real -100 0
ppm_min real 0 1000000
ppm_max real 0 1000000
clean_air_ratio real 0 1000""",
}
"""Name, kind, least, most (of a text its length), and what it is if nobody says. Texts: objects would take 4 KB."""

_GATES = const(9)


def rules():
    """Yield table, name, kind, least, most and perhaps the default of each setting, as texts."""
    for table, lines in _RULES.items():
        for line in lines.split("\n"):
            yield [table] + line.split()


def check(wanted, only=""):
    """Return the whole settings of which some are wanted to be different, or one table. Raises ValueError, in words.

    Whether a gas has a curve is asked of mq_curves.py, later.
    """
    _check_names(wanted)
    settings = {"version": wanted.get("version", 0)}
    for table, field, kind, least, most, *default in rules():
        value = wanted.get(table, {}).get(field)
        if value is not None:
            _check_one("%s.%s" % (table, field), value, kind, int(least), int(most))
        elif default:
            value = default[0] if kind == "text" else json.loads(default[0])
        if not only or only == table:
            fields = settings.setdefault(table, {})
            if value is not None:
                fields[field] = value
    return settings


def _check_names(wanted):
    for table, fields in wanted.items():
        if table == "version":
            if not is_between(fields, 0, 1 << 53):
                raise ValueError("version must be a whole number")
        elif not isinstance(fields, dict):
            raise ValueError("%s must be an object" % table)
        else:
            for field in fields:
                if not any(rule[:2] == [table, field] for rule in rules()):
                    raise ValueError("%s.%s is no setting" % (table, field))


def _check_one(name, value, kind, least, most):
    words = "a whole number from %d to %d" % (least, most)
    if kind == "bool":
        good, words = isinstance(value, bool), "true or false"
    elif kind == "list":
        good = isinstance(value, list) and len(value) == _GATES and all(is_between(one, least, most) for one in value)
        words = "%d whole numbers from %d to %d" % (_GATES, least, most)
    elif kind == "text":
        good = isinstance(value, str) and least <= len(value) <= most
        words = "a text of %d to %d characters" % (least, most)
    elif kind == "real":
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most
        words = "a number from %d to %d" % (least, most)
    else:
        good = is_between(value, least, most)
    if not good:
        raise ValueError("%s must be %s" % (name, words))


def is_between(value, least, most):
    """Whether it is a whole number between these."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
