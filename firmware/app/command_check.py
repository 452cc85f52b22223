"""What a command asks for, and whether it may be carried out. In memory only meanwhile."""

import json


def understood(payload, targets, clock):
    """Return method, parameters, and who carries it out. Raises ValueError."""
    if payload is None:
        raise ValueError("the command is too long")
    try:
        command = json.loads(payload)
    except ValueError:
        raise ValueError("the command is no JSON") from None
    if not isinstance(command, dict) or not isinstance(command.get("params") or {}, dict):
        raise ValueError("a command is an object with method and params")
    method = command.get("method")
    for target in targets:
        if method in target.methods:
            break
    else:
        raise ValueError("no such method; there are %s" % ", ".join(sorted(sum([one.methods for one in targets], ()))))
    _check_deadline(command.get("deadline"), clock)
    return method, command.get("params") or {}, target


def _check_deadline(deadline, clock):
    if deadline is None:
        return
    if not isinstance(deadline, (int, float)):
        raise ValueError("deadline must be unix seconds")
    now_ms = clock.unix_ms()
    if now_ms is None:
        raise ValueError("the board does not know the time, so perhaps it is too late")
    if now_ms // 1000 > int(deadline):
        raise ValueError("too late")
