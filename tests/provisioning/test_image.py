"""MicroPython's own image: checked before it is written; what esptool says is passed on."""

import hashlib
import os
import pty
from pathlib import Path

import pytest

from gateway.model.errors import NeurogateError
from gateway.provisioning.image import check_image, write_image


def image(folder: Path, content: bytes) -> tuple[Path, str]:
    file = folder / "image.bin"
    file.write_bytes(content)
    return file, hashlib.sha256(content).hexdigest()


def test_an_image_for_this_chip_with_its_sum_is_taken(tmp_path: Path) -> None:
    file, sha256 = image(tmp_path, b"\xe9" + bytes(1000))
    check_image(file, f" {sha256.upper()}\n")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x7fELF" + bytes(1000), "no image for an ESP chip"),
        (b"\xe9", "no image for an ESP chip"),
        (b"\xe9" + bytes(11) + b"\x09" + bytes(1000), "another chip"),
        (b"\xe9" + bytes(0x200000), "overwrite"),
    ],
)
def test_any_other_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(NeurogateError, match=words):
        check_image(*image(tmp_path, content))


def test_another_sum_is_refused(tmp_path: Path) -> None:
    file, sha256 = image(tmp_path, b"\xe9" + bytes(1000))
    with pytest.raises(NeurogateError, match=f"its SHA-256 is {sha256}"):
        check_image(file, "0" * 64)
    with pytest.raises(NeurogateError, match="cannot be read"):
        check_image(tmp_path / "none", sha256)


def test_a_board_that_does_not_answer_esptool_is_said(tmp_path: Path) -> None:
    _, silent = pty.openpty()
    file, _ = image(tmp_path, b"\xe9" + bytes(1000))
    with pytest.raises(NeurogateError, match=r"Failed to connect to ESP32.*Hold BOOT"):
        write_image(os.ttyname(silent), file)


def test_without_esptool_it_says_where_it_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.provisioning.image.find_spec", lambda _: None)
    with pytest.raises(NeurogateError, match="esptool is not installed"):
        write_image("/dev/null", tmp_path / "image.bin")
