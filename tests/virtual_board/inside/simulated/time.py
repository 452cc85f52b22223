# The ESP32's time: whole seconds since 2000, and at power on it is 2000-01-01. Ticks are MicroPython's own.
from time import *

_EPOCH_S = 946_684_800  # 2000-01-01 in unix seconds
_put, _get, _events = control["put"], control["get"], events


def _milliseconds():
    return real_time.time_ns() // 1_000_000 - int(_get("clock_offset_ms", "0"))


def set_clock(seconds):
    _put("clock_offset_ms", str(real_time.time_ns() // 1_000_000 - seconds * 1000))


def time():
    return _milliseconds() // 1000


def time_ns():
    return _milliseconds() * 1_000_000


def gmtime(seconds=None):
    return real_time.gmtime((time() if seconds is None else seconds) + _EPOCH_S)


localtime = gmtime


def mktime(fields):
    days = 0
    year, month, day, hour, minute, second = fields[:6]
    for one in range(2000, year):
        days += 366 if one % 4 == 0 and (one % 100 or one % 400 == 0) else 365
    lengths = (
        31,
        29 if year % 4 == 0 and (year % 100 or year % 400 == 0) else 28,
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    )
    days += sum(lengths[: month - 1]) + day - 1
    return ((days * 24 + hour) * 60 + minute) * 60 + second


def sleep_ms(ms):
    _events["sleep_ms"](ms)


def sleep(seconds):
    _events["sleep_ms"](seconds * 1000)
