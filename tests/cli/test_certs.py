"""`neurogate certs`, with and without a gateway; and a gateway as it really runs, over TLS."""

import json
import socket
import ssl
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway_here import GatewayHere
from tests.gateway_process import CONNACK, WAIT_S, GatewayProcess, connect_packet
from tests.ports import free_port


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    one = GatewayHere(tmp_path)
    yield one
    one.kill()


def with_tls(gateway: GatewayProcess, *, more: str = "") -> int:
    """Open a port over TLS from the next start on; returns it."""
    port = free_port()
    file = gateway.folder / "neurogate.toml"
    file.write_text(file.read_text().replace("tls_port = 0", f"tls_port = {port}", 1) + more)
    return port


def come_in(gateway: GatewayProcess, port: int, hello: bytes, shown: Path | None = None) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=gateway.folder / "ca.pem")
    if shown is not None:
        context.load_cert_chain(shown.with_suffix(".crt.pem"), shown.with_suffix(".key.pem"))
    plain = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
    secure = context.wrap_socket(plain, server_hostname="localhost")
    secure.sendall(hello)
    assert secure.recv(4) == CONNACK
    return secure


def test_init_show_and_renew_without_a_gateway(gateway: GatewayProcess) -> None:
    missing = gateway.neurogate("certs", "show")
    assert (missing.returncode, "neurogate certs init" in missing.stderr) == (1, True)
    first = gateway.json("certs", "init")
    assert [one["role"] for one in first] == ["authority", "next_authority", "server"]
    assert {"localhost", "127.0.0.1", "::1"} <= set(first[2]["names"])
    assert gateway.json("certs", "show") == first
    again = gateway.neurogate("certs", "init")
    assert (again.returncode, "certs init --replace" in again.stderr) == (1, True)
    renewed = gateway.json("certs", "renew")
    assert renewed[:2] == first[:2]
    assert renewed[2]["fingerprint"] != first[2]["fingerprint"]
    followed = gateway.json("certs", "renew", "--ca")
    assert followed[0]["pem"] == renewed[1]["pem"]
    replaced = gateway.json("certs", "init", "--replace")
    assert not {one["pem"] for one in replaced} & {one["pem"] for one in followed}
    shown = gateway.neurogate("certs", "show").stdout
    assert "SHA-256 " in shown
    assert "localhost" in shown


def test_what_clients_must_know_as_pem_and_der(gateway: GatewayProcess) -> None:
    authorities = gateway.json("certs", "init")[:2]
    pem = gateway.neurogate("certs", "show", "--ca").stdout
    assert pem == "".join(one["pem"] for one in authorities)
    assert "PRIVATE" not in pem
    assert gateway.neurogate("certs", "show", "--der", "board").returncode == 0
    written = [(gateway.folder / "board" / name).read_bytes() for name in ("ca.der", "ca-next.der")]
    assert written == [ssl.PEM_cert_to_DER_cert(one["pem"]) for one in authorities]


def test_a_device_gets_a_key_only_into_a_file_or_json(gateway: GatewayProcess) -> None:
    gateway.json("certs", "init")
    gateway.json("device", "add", "board")
    nowhere = gateway.neurogate("certs", "issue", "board")
    assert (nowhere.returncode, "--out" in nowhere.stderr) == (1, True)
    issued = gateway.neurogate("certs", "issue", "board", "--out", "out")
    assert (issued.returncode, "PRIVATE" in issued.stdout) == (0, False)
    names = {
        "ca.pem",
        "ca.der",
        "ca-next.der",
        *(f"board.{what}" for what in ("crt.pem", "key.pem", "crt.der", "key.der")),
    }
    out = gateway.folder / "out"
    assert {path.name for path in out.iterdir()} == names
    assert stat.S_IMODE((out / "board.key.pem").stat().st_mode) == 0o600
    assert "BEGIN PRIVATE KEY" in gateway.json("certs", "issue", "board")["key"]
    assert gateway.neurogate("certs", "issue", "nobody", "--json").returncode == 1


def test_a_gateway_makes_its_certificates_itself_and_renews_them_for_new_connections(gateway: GatewayProcess) -> None:
    port = with_tls(gateway, more='[tls]\nclient_certificates = "optional"\n')
    gateway.start()
    for name in ("site-ca.key", "server.key"):
        assert stat.S_IMODE((gateway.data_dir / name).stat().st_mode) == 0o600
    (gateway.folder / "ca.pem").write_text(gateway.neurogate("certs", "show", "--ca").stdout)
    board = gateway.json("device", "add", "board")
    by_password = come_in(gateway, port, connect_packet(board["username"], board["password"]))
    before = by_password.getpeercert(binary_form=True)
    assert gateway.json("certs", "renew", "--ca")
    gateway.neurogate("certs", "issue", "board", "--out", "out")
    hello = b"\x10\x0f\0\4MQTT\4\2\0\0\0\3cat"
    by_certificate = come_in(gateway, port, hello, gateway.folder / "out/board")
    assert by_certificate.getpeercert(binary_form=True) != before
    for one in (by_password, by_certificate):
        one.sendall(b"\xc0\0")
        assert one.recv(2) == b"\xd0\0"
    gateway.neurogate("device", "revoke", "board")
    for one in (by_password, by_certificate):
        assert one.recv(1) == b""
        one.close()


def test_a_stranger_and_half_open_handshakes_beside_mosquitto(gateway: GatewayProcess) -> None:
    port = with_tls(gateway)
    gateway.start()
    (gateway.folder / "ca.pem").write_text(gateway.neurogate("certs", "show", "--ca").stdout)
    board = gateway.json("device", "add", "board")
    half_open = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    for one in half_open[::2]:
        one.sendall(b"\x16\3\1\2\0\1\0\1\xfc\3\3")
    stranger = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
    with pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(stranger, server_hostname="localhost")
    stranger.close()
    told = ["-u", board["username"], "-P", board["password"], "-t", board["topics"][0], "-q", "1"]
    payload = json.dumps({"device_id": "board", "sensors": {"pir": {"motion_detected": True}}})
    command = ["mosquitto_pub", "-h", "localhost", "-p", str(port), "--cafile", str(gateway.folder / "ca.pem")]
    assert subprocess.run([*command, *told, "-m", payload], timeout=WAIT_S, check=False).returncode == 0
    for one in half_open:
        one.close()
    assert gateway.json("buffer", "status")["buffer"]["readings"] == 1


def test_a_backup_brings_the_ca_to_a_new_machine(gateway: GatewayProcess, tmp_path: Path) -> None:
    port = with_tls(gateway)
    gateway.start()
    (gateway.folder / "ca.pem").write_text(gateway.neurogate("certs", "show", "--ca").stdout)
    board = gateway.json("device", "add", "board")
    (gateway.folder / "phrase").write_text("a passphrase")
    assert gateway.neurogate("backup", "all.backup", "--passphrase-file", "phrase").returncode == 0
    gateway.stop()
    gateway.data_dir.rename(tmp_path / "lost")
    restored = gateway.neurogate("restore", "all.backup", "--passphrase-file", "phrase")
    assert (restored.returncode, "Restored" in restored.stdout) == (0, True)
    for name in ("site-ca.key", "server.key"):
        assert stat.S_IMODE((gateway.data_dir / name).stat().st_mode) == 0o600
    gateway.start()
    come_in(gateway, port, connect_packet(board["username"], board["password"])).close()


def test_check_says_whether_a_certificate_of_ones_own_can_be_used(gateway: GatewayProcess) -> None:
    with_tls(gateway, more='[tls]\ncertificate_file = "own.pem"\n')
    missing = gateway.neurogate("check")
    assert (missing.returncode, "own.pem" in missing.stderr) == (78, True)
    gateway.json("certs", "init")
    (gateway.folder / "own.pem").write_bytes((gateway.data_dir / "server.key").read_bytes())
    good = gateway.neurogate("check")
    assert (good.returncode, "TLS certificate" in good.stdout) == (0, True)
