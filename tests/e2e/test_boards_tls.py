"""A flashed board speaks TLS to the gateway that it was told of, and to nobody else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.provisioning.credential import Credential
from gateway.provisioning.flash import Order, Wifi, flash
from gateway.provisioning.reachable import Address
from tests.firmware.board_process import mosquitto
from tests.firmware.site_certificates import SiteCA
from tests.provisioning.stand_in import Said
from tests.virtual_board.virtual_board import VirtualBoard

NAME = "gateway.site"
LOGIN = Credential("default", "kitchen", "default/kitchen", "a password")


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualBoard]:
    with VirtualBoard(tmp_path_factory.mktemp("board")) as board:
        board.put("names", f"{NAME} 127.0.0.1")
        yield board


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> SiteCA:
    return SiteCA(tmp_path_factory.mktemp("site") / "ca")


def put_on(board: VirtualBoard, port: int, ca: SiteCA) -> int:
    """Flash the board for the broker on this port; returns where its console was before."""
    at = len(board.console())
    address = Address(NAME, port, 8080, ca.der.read_bytes())
    assert flash(Order(board.port, wifi=Wifi("home", "")), address, LOGIN, Said()) is None
    return at


def test_by_the_sites_ca_it_connects(board: VirtualBoard, ca: SiteCA, tmp_path: Path) -> None:
    with mosquitto(tmp_path / "m", tls=ca.issue(NAME)) as port:
        board.wait_for("connection: connected", after=put_on(board, port, ca))


@pytest.mark.parametrize(
    ("name", "days", "other_ca", "words"),
    [
        ("other.site", (-1, 30), False, f"the certificate is for another name than {NAME}"),
        (NAME, (-10, -1), False, f"the certificate of {NAME} has expired"),
        (NAME, (-1, 30), True, f"the certificate of {NAME} was not issued by this site's CA"),
    ],
)
def test_whoever_else_answers_is_refused(
    board: VirtualBoard, ca: SiteCA, tmp_path: Path, name: str, days: tuple[float, float], other_ca: bool, words: str
) -> None:
    issuer = SiteCA(tmp_path / "other") if other_ca else ca
    with mosquitto(tmp_path / "m", tls=issuer.issue(name, days)) as port:
        at = put_on(board, port, ca)
        board.wait_for(words, after=at)
    assert "connection: connected" not in board.console()[at:]
