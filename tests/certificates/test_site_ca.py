"""The CA and its successors, as OpenSSL sees them; MicroPython's mbedTLS is asked in tests/tls."""

import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.certificates.authority import (
    Certificate,
    ClientIdentity,
    Issued,
    certificate_der,
    certificate_pem,
    key_pem,
    names_of,
)
from gateway.certificates.site_ca import AUTHORITY_LIFE, AUTHORITY_SIGNS, SiteCa

NOW = datetime.now(UTC).replace(microsecond=0)
YEAR = timedelta(days=365)
CA = SiteCa.new("site-1", NOW)


def accepts(folder: Path, pinned: list[Certificate], shown: Issued, *chain: Certificate, name: str = "pi.local") -> str:
    """Let OpenSSL shake hands in memory; returns what the client complains of."""
    file = folder / "shown.pem"
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as open_file:
        open_file.write(key_pem(shown.key) + b"".join(map(certificate_pem, (shown.certificate, *chain))))
    server_side, client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server_side.load_cert_chain(file)
    client_side.load_verify_locations(cadata=b"".join(map(certificate_der, pinned)))
    client_side.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    client = client_side.wrap_bio(to_client, to_server, server_hostname=name)
    for one in (client, server, client):
        try:
            one.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
    return ""


def server(ca: SiteCa) -> Issued:
    return ca.current.issue_server(["pi.local", "192.0.2.7", "fd00::7"], NOW + YEAR)


def test_a_server_is_known_by_each_of_its_names_and_no_other(tmp_path: Path) -> None:
    shown = server(CA)
    assert names_of(shown.certificate) == ("pi.local", "192.0.2.7", "fd00::7")
    for name in ("pi.local", "192.0.2.7", "fd00::7"):
        assert accepts(tmp_path, [CA.current.certificate], shown, name=name) == ""
    assert "mismatch" in accepts(tmp_path, [CA.current.certificate], shown, name="other.local")
    assert "issuer" in accepts(tmp_path, [CA.next.certificate], shown)


def test_no_certificate_has_a_beginning_and_none_outlives_its_authority(tmp_path: Path) -> None:
    shown = CA.current.issue_server(["pi.local"], NOW + 100 * YEAR)
    device = CA.current.issue_client(ClientIdentity("default/kitchen", 1), NOW + 100 * YEAR)
    for one in (CA.current, CA.next, shown, device):
        assert one.certificate.not_valid_before_utc == datetime(1970, 1, 1, tzinfo=UTC)
    assert shown.ends == device.ends == CA.current.ends
    ended = CA.current.issue_server(["pi.local"], NOW - timedelta(days=1))
    assert accepts(tmp_path, [CA.current.certificate], ended) == "certificate has expired"


def test_boards_of_every_age_know_the_server_after_a_succession(tmp_path: Path) -> None:
    after = CA.succeeded("site-1", NOW)
    assert after.current.certificate == CA.next.certificate
    shown = server(after)
    for pinned in (CA.pinned, CA.pinned[:1], CA.pinned[1:], after.pinned):
        assert accepts(tmp_path, list(pinned), shown, *after.vouching) == ""
    assert "issuer" in accepts(tmp_path, [CA.current.certificate], shown)  # it is the voucher that led there
    twice = after.succeeded("site-1", NOW)
    for pinned in (CA.pinned, CA.pinned[:1], after.pinned):
        assert accepts(tmp_path, list(pinned), server(twice), *twice.vouching) == ""
    assert set(twice.trusted) == {*CA.pinned, *twice.pinned}


def test_a_successor_is_known_for_20_years_and_nobody_is_left_with_less_than_10() -> None:
    ca, now = CA, NOW
    for _ in range(5):
        assert not ca.is_to_be_followed(now + AUTHORITY_SIGNS - timedelta(days=1))
        now += AUTHORITY_SIGNS + timedelta(days=1)
        assert ca.is_to_be_followed(now)
        assert ca.current.ends - now > 10 * YEAR - timedelta(days=10)
        successor = ca.succeeded("site-1", now)
        assert successor.current.ends - now > AUTHORITY_LIFE - timedelta(days=10)
        assert successor.next.ends > successor.current.ends
        assert len(successor.vouching) <= 2  # of those that have ended there is none
        ca = successor


def test_what_is_written_is_what_is_read() -> None:
    after = CA.succeeded("site-1", NOW)
    read = SiteCa.from_pem(after.to_pem())
    assert (read.pinned, read.vouching, read.former) == (after.pinned, after.vouching, after.former)
    assert read.next.key.private_numbers() == after.next.key.private_numbers()


@pytest.mark.parametrize("length", [0, 100, 1000])
def test_what_is_cut_off_is_refused(length: int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - OpenSSL says it in many ways
        SiteCa.from_pem(CA.to_pem()[:length])


def test_keys_and_certificates_of_two_authorities_are_refused() -> None:
    mixed = SiteCa(CA.current, type(CA.next)(CA.next.key, SiteCa.new("x", NOW).next.certificate))
    with pytest.raises(ValueError, match="do not match"):
        SiteCa.from_pem(mixed.to_pem())


@pytest.mark.parametrize("username", ["default/kitchen", "a/b:c.d-e_f", "org/" + "x" * 100, "ü/%2F@1"])
def test_a_client_certificate_says_who_and_since_when(username: str) -> None:
    identity = ClientIdentity(username, 1_795_282_317_420)
    assert ClientIdentity.of(CA.current.issue_client(identity, NOW + YEAR).certificate) == identity


def test_a_server_certificate_names_no_client() -> None:
    assert ClientIdentity.of(server(CA).certificate) is None
    assert ClientIdentity.of(CA.current.certificate) is None
