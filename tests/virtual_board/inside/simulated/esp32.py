# What the application asks of the chip itself.
_get = control["get"]


def mcu_temperature():
    return int(_get("mcu_temperature", "41"))


def idf_heap_info(kind):
    return [(113840, 40000, 36000, 30000)]


HEAP_DATA, HEAP_EXEC = 4, 1
