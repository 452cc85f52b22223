"""What a board can be set to, and to what it is if nobody says. In memory only meanwhile."""

import json

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


def rules(only=""):
    """Yield table, name, kind, least, most and perhaps the default of each setting, or of one table's, as texts."""
    for table, lines in _RULES.items():
        start = 0 if only in ("", table) else len(lines)
        while start < len(lines):  # one line after the other: all at once would take 1 KB
            end = lines.find("\n", start)
            end = len(lines) if end < 0 else end
            yield [table] + lines[start:end].split()
            start = end + 1


def tables(wanted):
    """Yield each table and all of its fields, of which some are wanted to be different and have been checked."""
    for table in _RULES:
        fields = {}
        for _, field, kind, _, _, *default in rules(table):
            value = wanted.get(table, {}).get(field)
            if value is None and default:
                value = default[0] if kind == "text" else json.loads(default[0])
            if value is not None:
                fields[field] = value
        yield table, fields
