"""Google's own library makes the same token of the same key, and reads ours."""

import json
from datetime import UTC, datetime
from unittest import mock

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.auth import _helpers, jwt
from google.oauth2 import service_account

from cloud_sync.signing.google_jwt import parse_service_account, token
from tests.cloud_sync.integrations.clouds.google import SCOPE, made_account

NOW_S = 1_795_176_000
ACCOUNT = made_account()


def test_a_token_says_what_googles_library_says() -> None:
    theirs = service_account.Credentials.from_service_account_info(ACCOUNT.info, scopes=[SCOPE])
    theirs = theirs.with_always_use_jwt_access(True)  # noqa: FBT003 - it takes no name
    moment = datetime.fromtimestamp(NOW_S, UTC).replace(tzinfo=None)
    with mock.patch.object(_helpers, "utcnow", return_value=moment):
        theirs._create_self_signed_jwt(None)
        theirs.refresh(None)
    ours = token(parse_service_account(ACCOUNT.key_file), SCOPE, issued_s=NOW_S, expires_s=NOW_S + 3600)
    expected_header, expected_claims, _, _ = jwt._unverified_decode(theirs.token)
    header, claims, _, _ = jwt._unverified_decode(ours)
    assert (header, claims) == (expected_header, expected_claims)
    with mock.patch.object(_helpers, "utcnow", return_value=moment):
        assert jwt.decode(ours, certs=ACCOUNT.certificate) == claims


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"type": "authorized_user"}, "service_account"),
        ({"client_email": ""}, "lacks"),
        ({"private_key_id": 7}, "lacks"),
        ({"private_key": "hidden"}, "no RSA key"),
    ],
)
def test_what_is_no_key_file_is_said_without_the_key(changed: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        parse_service_account(json.dumps(ACCOUNT.info | changed))
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "a-secret-of-32-characters-length", "[]", "null"])
def test_what_is_not_even_json_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="JSON"):
        parse_service_account(text)


def test_another_kind_of_key_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    with pytest.raises(ValueError, match="no RSA key"):
        parse_service_account(json.dumps(ACCOUNT.info | {"private_key": pem}))


def test_no_key_is_shown() -> None:
    assert "key=" not in repr(parse_service_account(ACCOUNT.key_file))
