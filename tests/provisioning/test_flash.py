"""Flashing a virtual board: what it was stays where it should, and every step that fails says what to do."""

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.model.errors import NeurogateError
from gateway.provisioning.board import Board
from gateway.provisioning.credential import Credential
from gateway.provisioning.flash import Order, Wifi, flash
from gateway.provisioning.reachable import Address
from tests.provisioning.stand_in import PROGRAM, Said, StandInGateway, firmware
from tests.virtual_board.virtual_board import VirtualBoard

WIFI = Wifi("home", "very secret")


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualBoard]:
    with VirtualBoard(tmp_path_factory.mktemp("board")) as board:
        yield board


@pytest.fixture(scope="module")
def link(board: VirtualBoard) -> StandInGateway:
    return StandInGateway(board)


@pytest.fixture(scope="module")
def address() -> Iterator[Address]:
    """Where something listens; nobody logs in there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Address("127.0.0.1", server.getsockname()[1], 8080)


@pytest.fixture(scope="module")
def order(board: VirtualBoard, tmp_path_factory: pytest.TempPathFactory) -> Order:
    sources = firmware(tmp_path_factory.mktemp("firmware"))
    return Order(board.port, "kitchen", {"room": "kitchen"}, wifi=WIFI, firmware=sources, wait_s=20)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A board that does not go on is given up soon."""
    monkeypatch.setattr("gateway.provisioning.board._TIMEOUT_S", 1.5)


@pytest.fixture
def flashed(order: Order, address: Address, link: StandInGateway) -> None:
    """The board is `kitchen`, whatever the tests before have made of it."""
    if "kitchen" not in link.passwords:
        flash(order, address, link, Said())


def test_a_blank_board_becomes_a_device_that_sends(
    board: VirtualBoard, order: Order, address: Address, link: StandInGateway
) -> None:
    said = Said()
    reading = flash(order, address, link, said)
    assert reading is not None
    assert reading["device_id"] == "kitchen"
    assert link.metadata["kitchen"] == {"room": "kitchen"}
    assert said.last[0] == said.last[1] > 0
    with Board.open(board.port) as opened:
        assert json.loads(opened.read("/config.json") or b"") == {
            "gateway": {"host": "127.0.0.1", "port": address.port, "http_port": 8080, "tls": False},
            "wifi": {"ssid": "home", "password": "very secret"},
            "mqtt": {"username": "default/kitchen", "password": link.passwords["kitchen"]},
            "device_id": "kitchen",
            "organization_id": "default",
        }
        assert json.loads(opened.read("/slot.json") or b"") == {"active": "a", "confirmed": True, "starts": 0}
        names = set(opened.files())
    assert {"/boot.py", "/main.py", "/board.mpy", "/slots/a/app/main.mpy", "/slots/a/drivers/ld2410_frames.mpy"} < names
    assert not {"very secret", link.passwords["kitchen"]} & set(" ".join(said.words).split())


@pytest.mark.usefixtures("flashed")
def test_flashed_again_it_keeps_what_is_its_own_and_gets_what_is_new(
    board: VirtualBoard, order: Order, address: Address, link: StandInGateway, tmp_path: Path
) -> None:
    """Also while a program runs whose watchdog would bite after half a second."""
    kept = {"/calibration.json": b'{"r0_ohm": 1}', "/spill/00000001": b"waits", "/settings.json": b"{}"}
    old = {"/slots/b/app/main.mpy": b"old", "/slots/a/app/gone.mpy": b"old", "/board.py": b"LED = 3"}
    with Board.open(board.port) as opened:
        for path, content in (kept | old).items():
            opened.write(path, content)
        at = len(board.console())
        opened.reset()
    board.wait_for("stand-in runs", after=at)
    asked = link.asked
    newer = replace(order, device_id="", wifi=None, firmware=firmware(tmp_path, PROGRAM + "\nVERSION = 2\n"))

    class Slowly(Said):
        def step(self, words: str) -> None:
            super().step(words)
            time.sleep(0.7)

    said = Slowly()
    assert flash(newer, address, link, said) is not None
    assert link.asked == asked, "it has a login already"
    assert any("1 of them new" in words for words in said.words)
    with Board.open(board.port) as opened:
        assert {path: opened.read(path) for path in kept} == kept
        assert not old.keys() & opened.files().keys()
        assert b"very secret" in (opened.read("/config.json") or b"")
        opened.reset()


@pytest.mark.usefixtures("flashed")
def test_another_board_takes_a_name_only_when_that_is_said(
    board: VirtualBoard, order: Order, address: Address, link: StandInGateway
) -> None:
    with Board.open(board.port) as opened:
        opened.remove("/config.json")
    with pytest.raises(NeurogateError, match="--replace"):
        flash(order, address, link, Said())
    before = link.passwords["kitchen"]
    assert flash(replace(order, replace=True), address, link, Said()) is not None
    assert link.passwords["kitchen"] != before


@pytest.mark.usefixtures("flashed")
def test_offline_nobody_is_asked(board: VirtualBoard, order: Order) -> None:
    credential = Credential("default", "hall", "default/hall", "from a file")
    nowhere = Address("gateway.invalid", 1883, 8080)
    at = len(board.console())
    assert flash(order, nowhere, credential, Said()) is None
    board.wait_for("stand-in runs as hall from a file", after=at)


@pytest.mark.usefixtures("flashed")
def test_a_reading_that_does_not_come_shows_the_console_without_secrets(
    order: Order, address: Address, link: StandInGateway, tmp_path: Path
) -> None:
    sources = firmware(tmp_path, PROGRAM.replace("stand-in runs", "no Wi-Fi for"))
    with pytest.raises(NeurogateError, match="No reading of kitchen") as caught:
        flash(replace(order, replace=True, firmware=sources, wait_s=1.5), address, link, Said())
    assert "no Wi-Fi for as kitchen *** ***" in str(caught.value)
    assert link.passwords["kitchen"] not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("machine", "Generic ESP32S3 module with ESP32S3", "another chip: .*ESP32S3"),
        ("platform", "rp2", "another chip"),
    ],
)
def test_another_chip_is_refused_before_anything_is_written(
    board: VirtualBoard, order: Order, address: Address, link: StandInGateway, name: str, text: str, words: str
) -> None:
    board.put(name, text)
    asked = link.asked
    with pytest.raises(NeurogateError, match=words):
        flash(replace(order, replace=True), address, link, Said())
    board.take_away(name)
    assert link.asked == asked


def test_a_flash_that_is_too_small_is_said_before_anything_is_written(
    order: Order, address: Address, link: StandInGateway, tmp_path: Path
) -> None:
    with VirtualBoard(tmp_path, flash_kb=64) as small:
        with pytest.raises(NeurogateError, match="not enough"):
            flash(replace(order, port=small.port, device_id="small"), address, link, Said())
        with Board.open(small.port) as opened:
            assert opened.files() == {}
    assert "small" not in link.passwords


def test_without_wifi_nothing_is_written(order: Order, address: Address, link: StandInGateway, tmp_path: Path) -> None:
    with VirtualBoard(tmp_path) as blank, pytest.raises(NeurogateError, match="--wifi"):
        flash(replace(order, port=blank.port, device_id="blank", wifi=None), address, link, Said())
    assert "blank" not in link.passwords


@pytest.mark.usefixtures("impatient")
def test_a_cable_that_is_pulled_is_said_and_the_next_time_goes_on(
    order: Order, address: Address, tmp_path: Path
) -> None:
    with VirtualBoard(tmp_path) as board:

        class Pulled(Said):
            def progress(self, done: int, total: int) -> None:
                if done > total // 2:
                    board.power(on=False)

        other = StandInGateway(board)
        first = replace(order, port=board.port, device_id="cellar")
        with pytest.raises(NeurogateError, match="does not answer any more"):
            flash(first, address, other, Pulled())
        board.power(on=True)
        said = Said()
        assert flash(first, address, other, said) is not None
        assert other.asked == 1, "its login was there already"


def test_no_micropython_says_where_to_get_one(
    order: Order, address: Address, link: StandInGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import pty

    _, silent = pty.openpty()
    monkeypatch.setattr("gateway.provisioning.board._TRIES_S", (0.2, 0.2))
    with pytest.raises(NeurogateError, match=r"No MicroPython answers.*--image"):
        flash(replace(order, port=os.ttyname(silent)), address, link, Said())
