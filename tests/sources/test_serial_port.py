"""What is said of a port that cannot be opened."""

import errno
import fcntl
import os
import termios
from array import array
from pathlib import Path
from typing import Any

import pytest
import serial

from gateway.config import SerialTable
from gateway.sources import serial_port
from gateway.sources.serial_port import PortAbsent, PortUnusable, find_port
from tests.sources.pty_port import PtyPort

TCGETS2 = 0x802C542A  # asm-generic/ioctls.h: x86 and ARM


def failure(line: PtyPort) -> PortUnusable:
    with pytest.raises(PortUnusable) as raised:
        serial_port._open(SerialTable(port=str(line.path), device_id="usb"))
    return raised.value


def test_a_pattern_means_the_one_port_that_it_fits(line: PtyPort) -> None:
    assert find_port(str(line.path)) == line.path
    assert find_port(f"{line.path.parent}/tty*") == line.path


def test_a_pattern_that_fits_several_is_not_guessed_at(line: PtyPort) -> None:
    other = line.path.with_name("ttyUSB1")
    other.symlink_to(line.path)
    with pytest.raises(PortUnusable, match="could be any of") as raised:
        find_port(f"{line.path.parent}/ttyUSB*")
    assert str(other) in raised.value.message


def test_a_name_with_brackets_is_found_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "usb-Maker_[1]-if00").touch()
    assert find_port(f"{tmp_path}/usb-Maker_[1]-if00").name == "usb-Maker_[1]-if00"


def test_what_is_not_there_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(PortAbsent):
        find_port(f"{tmp_path}/ttyUSB0")


def test_a_port_one_may_not_open_names_the_group(line: PtyPort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "usermod -aG dialout" in failure(line).hint


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (serial.SerialException(errno.EACCES, "no"), "dialout"),
        (serial.SerialException(errno.EBUSY, "no"), "used by another program"),
        (serial.SerialException(errno.ENOENT, "no"), "Plug it in"),
        (termios.error(22, "Invalid argument"), "cannot be set to 115200 baud"),
        (ValueError("Invalid baud rate"), "cannot be set to 115200 baud"),
    ],
)
def test_each_failure_says_what_to_do(
    line: PtyPort, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(serial, "Serial", refuse)
    assert words in str(failure(line))


def test_a_plain_file_is_no_port(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.touch()
    with pytest.raises(PortUnusable):
        serial_port._open(SerialTable(port=str(path), device_id="usb"))


@pytest.mark.parametrize(
    ("settings", "speed"),
    [({}, 115_200), ({"baud_rate": 9_600}, 9_600), ({"format": "ld2410"}, 256_000)],
)
def test_the_speed_is_set(line: PtyPort, settings: dict[str, Any], speed: int) -> None:
    """The radar's has no constant of its own, so the kernel is asked."""
    table = {"port": str(line.path), "device_id": "usb"} | settings
    port = serial_port._open(SerialTable.model_validate(table))
    termios2 = array("i", [0] * 64)
    try:
        fcntl.ioctl(port.fileno(), TCGETS2, termios2)
        assert termios2[9:11].tolist() == [speed, speed]
    finally:
        port.close()
