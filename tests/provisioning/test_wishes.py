"""What a person asks of flashing: what is missing is said, and a password is never an option."""

from pathlib import Path

import pytest

from gateway.model.errors import NeurogateError
from gateway.provisioning.__main__ import main
from gateway.provisioning.wishes import named_gateway, order_of, parser
from tests.firmware.site_certificates import SiteCA


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--wifi", "home"], "password of home is missing"),
        (["--image", "file"], "go together"),
        (["--sha256", "00"], "go together"),
        (["--metadata", "kitchen"], "not KEY=VALUE"),
        (["--wifi", "home", "--wifi-password-file", "/none"], "cannot be read"),
    ],
)
def test_half_of_an_order_is_refused(monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    with pytest.raises(NeurogateError, match=words):
        order_of(parser("flash", has_gateway=True).parse_args(arguments))


def test_the_wifi_password_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROGATE_WIFI_PASSWORD", "secret")
    order = order_of(parser("flash", has_gateway=True).parse_args(["--wifi", "home", "--metadata", "room=hall=2"]))
    assert order.wifi is not None
    assert (order.wifi.ssid, order.wifi.password) == ("home", "secret")
    assert "secret" not in repr(order)
    assert order.metadata == {"room": "hall=2"}


def test_a_ca_means_tls_and_its_port(tmp_path: Path) -> None:
    ca = SiteCA(tmp_path / "ca")
    options = parser("flash", has_gateway=False)
    url = ["--gateway", "http://gateway.local:8081", "--token", "t"]
    named = named_gateway(options.parse_args(url))
    assert named is not None
    assert named[0].document == {"host": "gateway.local", "port": 1883, "http_port": 8081, "tls": False}
    named = named_gateway(
        options.parse_args([*url, "--ca", str(ca.der), "--host", "10.0.0.2", "--server-name", "site"])
    )
    assert named is not None
    assert named[0].document == {
        "host": "10.0.0.2",
        "port": 8883,
        "http_port": 8081,
        "tls": True,
        "server_name": "site",
    }


def test_without_a_token_or_a_host_the_next_step_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NEUROGATE_TOKEN", raising=False)
    assert main(["--gateway", "http://gateway.local:8080"]) == 1
    assert "neurogate token create" in capsys.readouterr().err
    assert main(["--offline", "device.json"]) == 1
    assert "--host" in capsys.readouterr().err
    assert main(["--gateway", "gateway.local", "--token", "t"]) == 1
    assert "no URL" in capsys.readouterr().err
