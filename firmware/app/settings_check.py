"""Whether a board can be set to what is wanted. In memory only meanwhile."""

from micropython import const

from app.settings_rules import rules, tables

_GATES = const(9)


def check_each(wanted):
    """Raise ValueError, in words, if one of these is no setting or cannot be that.

    Returns the gas sensor's, all of them: whether there is a curve for it is asked of mq_curves.py, later.
    """
    _check_names(wanted)
    for table, field, kind, least, most, *_ in rules():
        value = wanted.get(table, {}).get(field)
        if value is not None:
            _check_one("%s.%s" % (table, field), value, kind, int(least), int(most))
    return next(fields for table, fields in tables(wanted) if table == "mq134")


def _check_names(wanted):
    for table, fields in wanted.items():
        if table == "version":
            if not is_between(fields, 0, 1 << 53):
                raise ValueError("version must be a whole number")
        elif not isinstance(fields, dict):
            raise ValueError("%s must be an object" % table)
        else:
            for field in fields:
                if not any(rule[:2] == [table, field] for rule in rules(table)):
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
