"""Which port, and why not."""

import errno
import os
import pty
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import serial

from gateway.model.errors import NeurogateError
from gateway.provisioning.ports import check_port, find_port


def attached(monkeypatch: pytest.MonkeyPatch, *vids: int | None) -> None:
    found = [SimpleNamespace(device=f"/dev/ttyUSB{number}", vid=vid) for number, vid in enumerate(vids)]
    monkeypatch.setattr("gateway.provisioning.ports.list_ports.comports", lambda: found)


def test_the_only_board_is_found_and_two_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    attached(monkeypatch, None, 0x10C4, 0x046D)  # the last is no board
    assert find_port("auto") == "/dev/ttyUSB1"
    assert find_port("/dev/ttyS9") == "/dev/ttyS9"
    attached(monkeypatch, 0x10C4, 0x1A86)
    with pytest.raises(NeurogateError, match=r"ttyUSB0 \(Silicon.*ttyUSB1 \(WCH"):
        find_port("auto")
    attached(monkeypatch, None)
    with pytest.raises(NeurogateError, match="No board is attached"):
        find_port("auto")


def test_a_port_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(NeurogateError, match="There is no"):
        check_port(str(tmp_path / "ttyUSB0"))
    (tmp_path / "file").touch()
    with pytest.raises(NeurogateError, match="no serial port"):
        check_port(str(tmp_path / "file"))


def test_a_port_that_somebody_else_has_is_said() -> None:
    _, slave = pty.openpty()
    name = os.ttyname(slave)
    check_port(name)
    with serial.Serial(name, exclusive=True), pytest.raises(NeurogateError, match="Another program uses"):
        check_port(name)


def test_who_may_not_open_it_learns_how_to_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise serial.SerialException(errno.EACCES, "could not open port: Permission denied")

    _, slave = pty.openpty()
    monkeypatch.setattr(serial, "Serial", refused)
    with pytest.raises(NeurogateError, match="usermod -aG dialout"):
        check_port(os.ttyname(slave))
