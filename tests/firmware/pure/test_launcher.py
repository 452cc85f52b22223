"""Which release a start takes, and when it is safe mode: also run by MicroPython."""

import json

import launcher
import simulated_flash
from app import config
from app.slot import Slot

A = {"active": "a", "confirmed": True, "starts": 0}


def test_starts_that_come_to_nothing_end_in_safe_mode_and_leave_it_again():
    slot, kinds = dict(A), []
    for _ in range(4):
        slot, safe = launcher.choose(slot, False, False)
        kinds.append(safe)
    assert kinds == ["", "", "", "3 starts came to nothing"]
    slot["starts"] -= 1  # safe mode ends by a restart that is wanted
    assert launcher.choose(slot, False, False)[1] == ""


def test_a_release_that_never_holds_gives_way_to_the_other():
    slot = {"active": "b", "confirmed": False, "starts": 0}
    for _ in range(3):
        slot, safe = launcher.choose(slot, True, False)
        assert (slot["active"], safe) == ("b", "")
    slot, safe = launcher.choose(slot, True, False)
    assert slot == {"active": "a", "confirmed": True, "starts": 1}
    assert safe == ""


def test_boot_held_is_safe_mode_and_no_failed_start():
    assert launcher.choose(A, True, True) == (A, "BOOT is held")


def test_what_cannot_be_read_is_the_first_release():
    folder = simulated_flash.folder("slot")
    assert launcher.read(folder + "/slot.json") == A
    for text in ("", "[]", '{"starts": "x"}', "null"):
        with open(folder + "/slot.json", "w") as file:
            file.write(text)
        assert launcher.read(folder + "/slot.json") == A
    launcher.write(folder + "/slot.json", {"active": "b", "confirmed": False, "starts": 2})
    assert launcher.read(folder + "/slot.json") == {"active": "b", "confirmed": False, "starts": 2}
    simulated_flash.remove(folder)


def test_a_start_is_good_after_a_minute_with_the_gateway_or_five_without():
    folder = simulated_flash.folder("slot")
    path = folder + "/slot.json"
    started = {"active": "b", "confirmed": False, "starts": 2}
    launcher.write(path, started)
    slot = Slot(path)
    slot.look(59_000, 59_000)
    assert launcher.read(path) == started
    slot.look(300_000, 0)
    assert launcher.read(path) == {"active": "b", "confirmed": False, "starts": 0}
    slot.look(400_000, 60_000)
    assert launcher.read(path) == {"active": "b", "confirmed": True, "starts": 0}
    launcher.write(path, started)
    Slot(path).forgive()
    assert launcher.read(path) == {"active": "b", "confirmed": False, "starts": 1}
    simulated_flash.remove(folder)


def test_a_configuration_that_is_not_whole_is_refused_in_words():
    folder = simulated_flash.folder("config")
    path = folder + "/config.json"
    good = {
        "device_id": "kitchen",
        "organization_id": "default",
        "gateway": {"host": "gateway.local", "port": 8883, "tls": True, "server_name": "gateway.local"},
        "wifi": {"ssid": "home", "password": "x"},
        "mqtt": {"username": "u", "password": "p"},
    }
    bad = [({}, "wifi.ssid is missing"), (None, "flash the board again")]
    bad.append((dict(good, gateway=dict(good["gateway"], server_name="")), "server_name is missing"))
    bad.append((dict(good, device_id=""), "device_id is missing"))
    bad.append((dict(good, mqtt="x"), "mqtt.username is missing"))
    for wrong, words in bad:
        with open(path, "w") as file:
            json.dump(wrong, file)
        try:
            config.load(path)
        except ValueError as error:
            assert words in str(error), str(error)
        else:
            raise AssertionError(words)
    with open(path, "w") as file:
        json.dump(good, file)
    assert config.load(path) == good
    simulated_flash.remove(folder)
