import subprocess

from cloud_sync.signing.body_hmac import sign, verify
from tests.cloud_sync.samples import PLAIN_SECRET, STANDARD_SECRET


def test_openssl_makes_the_same_signature() -> None:
    command = ["openssl", "dgst", "-sha256", "-hmac", STANDARD_SECRET, "-r"]
    digest = subprocess.run(command, input=b"body", capture_output=True, check=True).stdout.split()[0].decode()
    assert sign(STANDARD_SECRET, b"body") == f"sha256={digest}"


def test_only_the_signature_of_this_body_with_this_secret_is_accepted() -> None:
    signature = sign(PLAIN_SECRET, b"body")
    assert verify(PLAIN_SECRET, signature, b"body")
    assert not verify(PLAIN_SECRET, signature, b"Body")
    assert not verify(STANDARD_SECRET, signature, b"body")
    assert not verify(PLAIN_SECRET, "", b"body")
    assert not verify(PLAIN_SECRET, "ü\udcff", b"body")
