"""TLS as the board does it: only a certificate of the site's CA, for the right name, that is valid now."""

from pathlib import Path
from typing import Any

import pytest

from tests.firmware.board_process import mosquitto, told
from tests.firmware.site_certificates import SiteCA

NAME = "gateway.site"


@pytest.fixture
def ca(tmp_path: Path) -> SiteCA:
    return SiteCA(tmp_path / "ca")


def story(port: int, ca: Path | None, *, server_name: str = NAME, **more: Any) -> dict[str, Any]:
    gateway = {"host": "board-test", "port": port, "tls": True, "server_name": server_name}
    return {"gateway": gateway, "ca": ca and str(ca), "patience_ms": 20_000, **more}


@pytest.mark.parametrize("server_name", [NAME, "127.0.0.1"])
async def test_over_tls_it_publishes_and_hears(tmp_path: Path, ca: SiteCA, server_name: str) -> None:
    messages = [["data", str(number), 1, False] for number in range(20)]
    messages.append(["to-board/kept", "k" * 3_000, 1, True])
    until = {"acknowledged": 21, "heard": 1}
    with mosquitto(tmp_path / "m", tls=ca.issue(NAME)) as port:
        board = await told("mqtt_story", story(port, ca.der, server_name=server_name, messages=messages, until=until))
    assert board.of("acknowledged")[:20] == [str(number) for number in range(20)]
    assert board.of("heard")[-1] == ["to-board/kept", "k" * 3_000]
    assert board.of("problem") == []


async def test_the_next_ca_is_believed_too(tmp_path: Path, ca: SiteCA) -> None:
    """`neurogate certs renew --ca` lets it take over; a board that was flashed before stays."""
    following = SiteCA(tmp_path / "next")
    pinned = tmp_path / "pinned.der"
    pinned.write_bytes(ca.der.read_bytes() + following.der.read_bytes())
    with mosquitto(tmp_path / "m", tls=following.issue(NAME)) as port:
        board = await told("mqtt_story", story(port, pinned, until={"connected": 1}))
    assert board.of("problem") == []


async def refusal(folder: Path, certificate: tuple[Path, Path], ca: Path | None, server_name: str = NAME) -> str:
    """Return why a board does not connect."""
    with mosquitto(folder / "m", tls=certificate) as port:
        board = await told("mqtt_story", story(port, ca, server_name=server_name, until={"problem": 1}))
    assert board.of("connected") == []
    return str(board.of("problem")[0])


async def test_a_certificate_for_another_name_is_refused(tmp_path: Path, ca: SiteCA) -> None:
    reason = await refusal(tmp_path, ca.issue("other.site"), ca.der)
    assert reason == "the certificate is for another name than gateway.site"


async def test_an_expired_certificate_is_refused(tmp_path: Path, ca: SiteCA) -> None:
    reason = await refusal(tmp_path, ca.issue(NAME, days=(-10, -1)), ca.der)
    assert reason == "the certificate of gateway.site has expired"


async def test_a_certificate_that_is_not_valid_yet_is_refused(tmp_path: Path, ca: SiteCA) -> None:
    reason = await refusal(tmp_path, ca.issue(NAME, days=(1, 10)), ca.der)
    assert reason == "the certificate of gateway.site is not valid yet: is the clock right?"


async def test_a_certificate_of_another_ca_is_refused(tmp_path: Path, ca: SiteCA) -> None:
    reason = await refusal(tmp_path, SiteCA(tmp_path / "other").issue(NAME), ca.der)
    assert reason == "the certificate of gateway.site was not issued by this site's CA"
