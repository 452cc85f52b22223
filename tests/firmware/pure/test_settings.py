"""Settings from the gateway: checked as a whole, on trial, taken back. Also run by MicroPython."""

import json
import os

import simulated_flash
from app import files
from app.settings import Settings, check
from app.settings_rules import rules, tables


class Board:
    def __init__(self):
        self.folder = simulated_flash.folder("settings")
        self.path = self.folder + "/settings.json"
        self.start()

    def start(self):
        self.settings = Settings(self.path)

    def offer(self, **wanted):
        return self.settings.offer(json.dumps(wanted).encode())

    def files(self):
        return sorted(os.listdir(self.folder))

    def remove(self):
        simulated_flash.remove(self.folder)


def test_every_setting_has_a_value_that_is_allowed():
    settings = dict(tables({}))
    for table, field, kind, least, most, *default in rules():
        assert kind in {"int", "text", "bool", "list", "real"}
        assert (field in settings[table]) == bool(default)
        assert int(least) < int(most)
    check(settings)
    assert dict(tables(settings)) == settings


def test_bad_ones_are_refused_as_a_whole_in_words():
    board = Board()
    good = {"heartbeat_s": 30}
    for wanted, words in (
        ({"readings": {"heartbeat_s": 0}}, "readings.heartbeat_s must be a whole number from 1 to 3600"),
        ({"readings": {"heartbeat_s": True}}, "readings.heartbeat_s must be"),
        ({"readings": {"heartbeat_s": "30"}}, "readings.heartbeat_s must be"),
        ({"readings": {"heartbit_s": 30}}, "readings.heartbit_s is no setting"),
        ({"readings": good, "lamp": {"on": True}}, "lamp.on is no setting"),
        ({"readings": 5}, "readings must be an object"),
        ({"pir": {"fitted": 1}}, "pir.fitted must be true or false"),
        ({"ld2410": {"moving_sensitivity": [1, 2]}}, "9 whole numbers from 0 to 100"),
        ({"ld2410": {"moving_sensitivity": [1] * 8 + [101]}}, "9 whole numbers from 0 to 100"),
        ({"connection": {"ntp_host": ""}}, "a text of 1 to 100 characters"),
        ({"mq134": {"a": "1"}}, "mq134.a must be a number"),
        ({"mq134": {"part": "mq999"}}, "no curve is known"),
    ):
        assert board.offer(version=7, **wanted) is False
        assert board.settings.refused["version"] == 7
        assert words in board.settings.refused["reason"], board.settings.refused
        assert board.settings.version == 0
        board.settings.refused = {}
    for payload in (b"", b"{", b"[]", b"5", b"{}", b'{"version": 0}', b'{"version": true}', b'{"version": "1"}'):
        assert board.settings.offer(payload) is False
        assert board.settings.refused["version"] is None
    assert board.files() == ["settings.json.refused"]
    board.remove()


def test_good_ones_are_in_force_after_a_restart_and_kept_when_they_work():
    board = Board()
    assert board.offer(version=3, readings={"heartbeat_s": 30}) is True
    assert board.settings.version == 0
    board.start()
    assert (board.settings.version, dict(board.settings.tables())["readings"]["heartbeat_s"]) == (3, 30)
    assert board.settings.is_on_trial
    board.settings.keep()
    board.start()
    assert not board.settings.is_on_trial
    assert board.offer(version=3, readings={"heartbeat_s": 30}) is False  # it is said with every connection
    assert board.files() == ["settings.json"]
    board.remove()


def test_what_does_not_reconnect_is_taken_back_once_and_for_all():
    board = Board()
    board.offer(version=3, readings={"heartbeat_s": 30})
    board.start()
    board.settings.keep()
    board.offer(version=4, readings={"heartbeat_s": 40})
    board.start()
    board.settings.roll_back("the board did not reconnect with it")
    board.start()
    assert (board.settings.version, board.settings.is_on_trial) == (3, False)
    assert board.settings.refused == {"version": 4, "reason": "the board did not reconnect with it"}
    assert board.offer(version=4, readings={"heartbeat_s": 40}) is False
    assert board.offer(version=5, readings={"heartbeat_s": 50}) is True
    board.remove()


def test_several_in_a_row_go_back_to_those_that_worked():
    board = Board()
    board.offer(version=3, readings={"heartbeat_s": 30})
    board.offer(version=4, readings={"heartbeat_s": 40})
    board.start()
    assert board.settings.version == 4
    board.offer(version=5, readings={"heartbeat_s": 50})
    board.start()
    board.settings.roll_back("no")
    board.start()
    assert board.settings.version == 0
    board.remove()


def test_a_power_cut_between_any_two_steps_leaves_old_or_new_ones():
    real = os.rename
    for steps in range(4):
        board = Board()
        board.offer(version=3, readings={"heartbeat_s": 30})
        board.start()
        board.settings.keep()
        left = [steps]

        class Cut:
            @staticmethod
            def rename(old, new, left=left):
                if not left[0]:
                    raise simulated_flash.PowerCut
                left[0] -= 1
                real(old, new)

            stat, remove = os.stat, os.remove

        files.os = Cut
        try:
            board.offer(version=4, readings={"heartbeat_s": 40})
        except simulated_flash.PowerCut:
            pass
        finally:
            files.os = os
        board.start()
        assert board.settings.version == (4 if steps >= 2 else 3), steps
        assert board.settings.is_on_trial == (steps >= 2), steps
        board.remove()


def test_a_file_that_nobody_can_read_costs_no_more_than_itself():
    board = Board()
    with open(board.path, "w") as file:
        file.write('{"version": 9, "readings": {"heartb')
    board.start()
    assert board.settings.version == 0
    board.remove()


def test_what_is_in_force_stays_when_a_file_holds_what_no_board_can_be_set_to():
    board = Board()
    files.write_json(board.path, {"version": 4, "readings": {"heartbeat_s": 0}})
    board.start()
    assert (board.settings.version, dict(board.settings.tables())["readings"]["heartbeat_s"]) == (0, 60)
    files.write_json(board.path + ".old", {"version": 3, "readings": {"heartbeat_s": 30}})
    board.start()
    assert (board.settings.version, dict(board.settings.tables())["readings"]["heartbeat_s"]) == (3, 30)
    board.remove()
