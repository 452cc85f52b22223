"""Which release a start takes, and when it is safe mode: also run by MicroPython."""

import json

import launcher
import simulated_flash
from app import config
from app.slot import Slot

A = {"active": "a", "confirmed": True, "starts": 0, "crashed": False}


def test_starts_that_come_to_nothing_end_in_safe_mode_and_leave_it_again():
    slot, kinds = dict(A), []
    for _ in range(4):
        slot, safe = launcher.choose(slot, False, False, False)
        kinds.append(safe)
    assert kinds == ["", "", "", "3 starts came to nothing"]
    slot["starts"] -= 1  # safe mode ends by a restart that is wanted
    assert launcher.choose(slot, False, False, False)[1] == ""


def test_a_release_that_never_holds_gives_way_to_the_other():
    slot = {"active": "b", "confirmed": False, "starts": 0, "crashed": False}
    for _ in range(3):
        slot, safe = launcher.choose(slot, True, False, False)
        assert (slot["active"], safe) == ("b", "")
    slot, safe = launcher.choose(slot, True, False, False)
    assert slot == dict(A, starts=1)
    assert safe == ""


def test_starts_that_the_power_ended_are_no_failed_ones():
    slot = dict(A)
    for _ in range(9):
        slot, safe = launcher.choose(slot, False, False, True)
        assert (slot["starts"], safe) == (1, "")
    for starts in (2, 3):
        slot, safe = launcher.choose(slot, False, False, False)
        assert (slot["starts"], safe) == (starts, "")
    assert launcher.choose(slot, False, False, False)[1] == "3 starts came to nothing"
    assert launcher.choose(slot, False, False, True)[1] == ""  # one more try for who pulls the plug


def test_crashes_count_also_when_the_power_is_cut_after_them():
    slot, kinds = dict(A), []
    for _ in range(4):
        slot, safe = launcher.choose(slot, False, False, True)
        kinds.append(safe)
        slot = dict(slot, crashed=True)
    assert kinds == ["", "", "", "3 starts came to nothing"]


def test_a_release_that_is_not_confirmed_gives_way_also_when_the_power_ends_its_starts():
    slot = {"active": "b", "confirmed": False, "starts": 0, "crashed": False}
    for _ in range(3):
        slot, _ = launcher.choose(slot, True, False, True)
        assert slot["active"] == "b"
    assert launcher.choose(slot, True, False, True)[0] == dict(A, starts=1)


def test_boot_held_is_safe_mode_and_no_failed_start():
    assert launcher.choose(A, True, True, False) == (A, "BOOT is held")


def test_what_cannot_be_read_is_the_first_release():
    folder = simulated_flash.folder("slot")
    assert launcher.read(folder + "/slot.json") == A
    for text in ("", "[]", '{"starts": "x"}', "null"):
        with open(folder + "/slot.json", "w") as file:
            file.write(text)
        assert launcher.read(folder + "/slot.json") == A
    known = {"active": "b", "confirmed": False, "starts": 2, "crashed": True}
    launcher.write(folder + "/slot.json", known)
    assert launcher.read(folder + "/slot.json") == known
    simulated_flash.remove(folder)


def test_a_start_is_good_after_a_minute_with_the_gateway_or_five_without():
    folder = simulated_flash.folder("slot")
    path = folder + "/slot.json"
    started = {"active": "b", "confirmed": False, "starts": 2, "crashed": False}
    launcher.write(path, started)
    slot = Slot(path)
    slot.look(59_000, 59_000)
    assert launcher.read(path) == started
    slot.look(300_000, 0)
    assert launcher.read(path) == {"active": "b", "confirmed": False, "starts": 0, "crashed": False}
    slot.look(400_000, 60_000)
    assert launcher.read(path) == {"active": "b", "confirmed": True, "starts": 0, "crashed": False}
    launcher.write(path, started)
    Slot(path).forgive()
    assert launcher.read(path) == {"active": "b", "confirmed": False, "starts": 1, "crashed": False}
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
