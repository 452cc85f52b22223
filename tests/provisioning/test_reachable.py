"""Before a board is touched it is known whether it would find, and believe, the gateway."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gateway.model.errors import NeurogateError
from gateway.provisioning.reachable import Address, authority_der, check_reachable
from tests.firmware.site_certificates import SiteCA
from tests.ports import free_port

NAME = "gateway.site"


@contextmanager
def tls_server(certificate: tuple[Path, Path]) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                connection, _ = server.accept()
                with connection, context.wrap_socket(connection, server_side=True) as line:
                    line.recv(1)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


@pytest.fixture
def ca(tmp_path: Path) -> SiteCA:
    return SiteCA(tmp_path / "ca")


def test_the_right_certificate_is_believed(ca: SiteCA) -> None:
    with tls_server(ca.issue(NAME)) as port:
        check_reachable(Address("127.0.0.1", port, 8080, ca.der.read_bytes(), NAME))


@pytest.mark.parametrize(
    ("name", "days", "other_ca", "words"),
    [
        ("other.site", (-1, 30), False, "Hostname mismatch"),
        (NAME, (-10, -1), False, "expired"),
        (NAME, (-1, 30), True, "certificate"),
    ],
)
def test_a_certificate_that_the_board_would_refuse_is_said(
    ca: SiteCA, tmp_path: Path, name: str, days: tuple[float, float], other_ca: bool, words: str
) -> None:
    issuer = SiteCA(tmp_path / "other") if other_ca else ca
    with (
        tls_server(issuer.issue(name, days)) as port,
        pytest.raises(NeurogateError, match=f"would refuse the gateway's certificate.*{words}"),
    ):
        check_reachable(Address("127.0.0.1", port, 8080, ca.der.read_bytes(), NAME))


def test_a_port_without_tls_is_said(ca: SiteCA) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"\x20\x02\x00\x05 plain words, no TLS")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(NeurogateError, match="does not speak TLS"):
            check_reachable(Address("127.0.0.1", server.getsockname()[1], 8080, ca.der.read_bytes()))


def test_a_name_that_does_not_resolve_is_said() -> None:
    with pytest.raises(NeurogateError, match=r"does not resolve.*--host"):
        check_reachable(Address("gateway.invalid", 1883, 8080))


def test_a_gateway_that_does_not_answer_is_said() -> None:
    port = free_port()
    with pytest.raises(NeurogateError, match=f"No gateway answers at 127.0.0.1:{port}"):
        check_reachable(Address("127.0.0.1", port, 8080))


def test_a_ca_is_taken_as_pem_or_der_and_nothing_else_is(ca: SiteCA) -> None:
    der = ca.der.read_bytes()
    assert authority_der(der) == der
    assert authority_der(f"words before\n{ssl.DER_cert_to_PEM_cert(der)}".encode()) == der
    two = ssl.DER_cert_to_PEM_cert(der) * 2
    assert authority_der(two.encode()) == der * 2, "the CA, and the next"
    for nonsense in (b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n"):
        with pytest.raises(NeurogateError, match="no certificate"):
            authority_der(nonsense)
