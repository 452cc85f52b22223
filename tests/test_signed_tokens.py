"""JWTs: one that is signed and says what it must lets in; whatever else calls itself one does not."""

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.clock import ManualClock
from gateway.signed_tokens import Claims, SignedTokens

SECRET = "a secret of more than thirty-two bytes"
NOW_S = ManualClock().now // 1000
GOOD: dict[str, Any] = {"sub": "alice", "role": "admin", "organization_id": "acme", "exp": NOW_S + 60}


def read(token: str, secret: str = SECRET, clock: ManualClock | None = None) -> Claims | None:
    return SignedTokens(secret, clock or ManualClock()).read(token)


def signed(**claims: Any) -> str:
    return jwt.encode(GOOD | claims, SECRET, algorithm="HS256")


def part(content: object) -> str:
    text = content if isinstance(content, str) else json.dumps(content)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def by_hand(header: object, claims: object = GOOD, key: bytes = SECRET.encode()) -> str:
    """Return a token with a good HS256 signature, whatever its header says."""
    text = f"{part(header)}.{part(claims)}"
    signature = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def test_a_good_one_says_who_it_is() -> None:
    expected = Claims("alice", "acme", "admin", (NOW_S + 60) * 1000)
    assert read(signed()) == expected
    assert read(by_hand({"alg": "HS256", "typ": "JWT"})) == expected
    assert read(signed(aud="authenticated", iss="elsewhere", iat=NOW_S, nbf=NOW_S, more=1)) == expected


def test_it_ends_at_its_time_and_begins_at_its_time() -> None:
    clock = ManualClock()
    clock.now = (NOW_S + 60) * 1000 - 1
    assert read(signed(), clock=clock) is not None
    clock.now += 1
    assert read(signed(), clock=clock) is None
    clock.now = NOW_S * 1000 - 1
    assert read(signed(nbf=NOW_S), clock=clock) is None


def test_while_the_clock_cannot_be_right_none_is_good() -> None:
    assert read(signed(), clock=ManualClock(60_000)) is None


def test_without_a_secret_none_is_good() -> None:
    assert read(by_hand({"alg": "HS256"}, key=b""), secret="") is None


@pytest.mark.parametrize("missing", ["exp", "sub", "role", "organization_id"])
def test_what_must_be_there_must_be_there(missing: str) -> None:
    claims = {name: value for name, value in GOOD.items() if name != missing}
    assert read(jwt.encode(claims, SECRET, algorithm="HS256")) is None


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW_S},
        {"exp": -1},
        {"exp": True},
        {"exp": [1]},
        {"exp": None},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"exp": 1e308},
        {"exp": 1e300},
        {"exp": 10**400},
        {"exp": 253_402_300_800},
        {"nbf": NOW_S + 1},
        {"nbf": "now"},
        {"nbf": -1e308},
        {"nbf": -(10**400)},
        {"role": "king"},
        {"role": ["admin"]},
        {"role": None},
        {"organization_id": ["acme"]},
        {"organization_id": None},
        {"sub": 7},
        {"sub": ""},
        {"sub": "a\nb"},
        {"sub": "a" * 201},
    ],
)
def test_a_claim_that_is_none_is_refused(claims: dict[str, Any]) -> None:
    assert read(by_hand({"alg": "HS256"})) is not None
    assert read(by_hand({"alg": "HS256"}, GOOD | claims)) is None


def test_a_time_is_one_until_the_year_9999_ends() -> None:
    claims = read(signed(exp=253_402_300_799))
    assert claims is not None
    assert claims.expires_at_ms == 253_402_300_799_000


def test_p7_no_other_algorithm_is_taken() -> None:
    public = rsa.generate_private_key(65_537, 2_048).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    unsigned = f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(GOOD)}."
    wrong = [unsigned, unsigned.removesuffix(".")]
    wrong += [by_hand({"alg": name}) for name in ("none", "None", "RS256", "HS512")]
    wrong += [by_hand({"alg": "HS256"}, key=pem), by_hand({"alg": "RS256"}, key=pem)]
    wrong += [by_hand({}), by_hand({"alg": ["HS256"]}), by_hand({"alg": "HS256", "crit": ["exp"]})]
    for token in wrong:
        assert read(token) is None, token
    assert read(jwt.encode(GOOD, SECRET * 2, algorithm="HS384"), secret=SECRET * 2) is None
    assert read(by_hand({"alg": "RS256"}, key=pem), secret=pem.decode()) is None


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "ngt_abc",
        "a.b.c",
        "\udcff.\udcff.\udcff",
        "ä.ä.ä",
        by_hand("[" * 5_000),
        by_hand("{"),
        by_hand([]),
        by_hand({"alg": "HS256"}, []),
        by_hand({"alg": "HS256"}, "[" * 3_000),
        by_hand({"alg": "HS256"}, f'{{"sub":"a","role":"admin","organization_id":"acme","exp":{"9" * 5_000}}}'),
        by_hand({"alg": "HS256"}, GOOD | {"more": "x" * 9_000}),
        signed()[:-1],
        signed() + "A",
        by_hand({"alg": "HS256"}, key=b"another secret"),
    ],
)
def test_nonsense_is_nobodys(token: str) -> None:
    assert read(token) is None
