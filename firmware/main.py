"""The launcher: counts the starts, chooses the release, and gives way to safe mode when a release does not hold.

Never updated over the air. /slot.json: `active` (`a` or `b`), `confirmed` (it has been connected for a minute once),
`starts` (since it was last known to be good), `crashed` (the last one ended by an error).

- a start that the power ended is no failed one, however early: the next takes its count back. Not while a release is
  unconfirmed: it may be what makes the supply collapse, which looks the same
- an unconfirmed release that has not been confirmed after three starts: the other one is taken again
- three starts that came to nothing, or BOOT held for a second while starting: safe mode
- no program that can be started: words on the console, and another try after a minute
"""

import json
import os
import sys
import time

_MOST_STARTS = 3


def read(path):
    """Return what is known of the releases."""
    try:
        with open(path) as file:
            slot = json.load(file)
            return {
                "active": "b" if slot.get("active") == "b" else "a",
                "confirmed": bool(slot.get("confirmed")),
                "starts": int(slot.get("starts", 0)),
                "crashed": bool(slot.get("crashed")),
            }
    except (OSError, ValueError, TypeError, AttributeError):
        return {"active": "a", "confirmed": True, "starts": 0, "crashed": False}


def write(path, slot):
    """Replace the file by a rename."""
    with open(path + ".new", "w") as file:
        json.dump(slot, file)
    os.rename(path + ".new", path)


def choose(slot, other_is_there, is_held, has_power_again):
    """Return what this start is: the changed slot, and why it is in safe mode, if it is."""
    slot = dict(slot)
    if has_power_again and slot["confirmed"] and not slot["crashed"] and slot["starts"]:
        slot["starts"] -= 1
    slot["crashed"] = False
    if slot["starts"] >= _MOST_STARTS and not slot["confirmed"] and other_is_there:
        slot = {"active": "a" if slot["active"] == "b" else "b", "confirmed": True, "starts": 0, "crashed": False}
    if is_held:
        return slot, "BOOT is held"
    if slot["starts"] >= _MOST_STARTS:
        return slot, "%d starts came to nothing" % slot["starts"]
    slot["starts"] += 1
    return slot, ""


def is_held(pin):
    """Whether BOOT, which pulls its pin low, is held for a second."""
    for _ in range(20):
        if pin.value():
            return False
        time.sleep_ms(50)
    return True


def _is_there(path):
    try:
        os.stat(path)
    except OSError:
        return False
    return True


def _try_to_write(slot):
    try:
        write("/slot.json", slot)
    except OSError as error:  # a full flash is no reason not to start
        print("launcher:", error)


def launch():
    """Start the program of the active release."""
    import board
    import machine

    pin = machine.Pin(board.BUTTON, machine.Pin.IN, machine.Pin.PULL_UP)
    slot = read("/slot.json")
    other = "/slots/" + ("a" if slot["active"] == "b" else "b")
    slot, safe = choose(slot, _is_there(other + "/app"), is_held(pin), machine.reset_cause() == machine.PWRON_RESET)
    _try_to_write(slot)
    sys.path.insert(0, "/slots/" + slot["active"])
    try:
        from app.main import run

        run(safe)
    except Exception as error:  # noqa: BLE001 - the last one who can do something
        sys.print_exception(error)
        _try_to_write(dict(read("/slot.json"), crashed=True))
        print("launcher: the program has ended; the board starts again in a minute (Ctrl-C for the console)")
        time.sleep(60)
        machine.reset()


if __name__ == "__main__":
    launch()
