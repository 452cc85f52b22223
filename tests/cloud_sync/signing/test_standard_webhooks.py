from base64 import b64encode
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook as Oracle
from standardwebhooks.webhooks import WebhookVerificationError

from cloud_sync.signing.standard_webhooks import TOLERANCE_S, parse_secret, sign, verify
from tests.cloud_sync.samples import PLAIN_SECRET, STANDARD_SECRET

KEY = parse_secret(STANDARD_SECRET)
BODY = '{"temperature":"21 °C"}'.encode()


def headers(timestamp: int, signature: str) -> dict[str, str]:
    return {"webhook-id": "msg_1", "webhook-timestamp": str(timestamp), "webhook-signature": signature}


def test_the_specifications_library_accepts_what_we_sign() -> None:
    now = int(datetime.now(UTC).timestamp())
    Oracle(STANDARD_SECRET).verify(BODY, headers(now, sign(KEY, "msg_1", now, BODY)))
    with pytest.raises(WebhookVerificationError):
        Oracle(STANDARD_SECRET).verify(BODY, headers(now, sign(KEY, "msg_2", now, BODY)))


def test_we_accept_what_the_specifications_library_signs() -> None:
    signature = Oracle(STANDARD_SECRET).sign("msg_1", datetime.fromtimestamp(1000, UTC), BODY.decode())
    assert signature == sign(KEY, "msg_1", 1000, BODY)
    assert verify(KEY, headers(1000, signature), BODY, now_s=1000)


def test_one_good_signature_among_several_is_enough() -> None:
    good, other = sign(KEY, "msg_1", 1000, BODY), sign(b"another key" * 3, "msg_1", 1000, BODY)
    assert verify(KEY, headers(1000, f"{other} v1a,unknown {good}"), BODY, now_s=1000)
    assert not verify(KEY, headers(1000, f"{other} v1a,unknown"), BODY, now_s=1000)


@pytest.mark.parametrize(
    ("age_s", "accepted"),
    [
        (0, True),
        (TOLERANCE_S, True),
        (-TOLERANCE_S, True),
        (TOLERANCE_S + 1, False),
        (-TOLERANCE_S - 1, False),
    ],
)
def test_a_recorded_message_cannot_be_played_again(age_s: int, accepted: bool) -> None:
    signed = headers(10_000, sign(KEY, "msg_1", 10_000, BODY))
    assert verify(KEY, signed, BODY, now_s=10_000 + age_s) is accepted


@pytest.mark.parametrize("changed", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize("value", [None, "", "1001", "99999999999999999999999", "ü", "\udcff", "9" * 5000])
def test_anything_missing_or_changed_is_refused(changed: str, value: str | None) -> None:
    signed = headers(1000, sign(KEY, "msg_1", 1000, BODY))
    if value is None:
        del signed[changed]
    else:
        signed[changed] = value
    assert not verify(KEY, signed, BODY, now_s=1000)


def test_another_body_is_refused() -> None:
    assert not verify(KEY, headers(1000, sign(KEY, "msg_1", 1000, BODY)), BODY + b" ", now_s=1000)


def test_a_secret_is_base64_with_its_prefix_or_any_text() -> None:
    assert parse_secret("whsec_" + b64encode(b"k" * 32).decode()) == b"k" * 32
    assert parse_secret("whsec_" + b64encode(b"k" * 32).decode().rstrip("=")) == b"k" * 32
    assert parse_secret(PLAIN_SECRET) == PLAIN_SECRET.encode()
    assert parse_secret("ü" * 12) == "ü".encode() * 12


@pytest.mark.parametrize("length", [24, 64])
def test_the_shortest_and_the_longest_secret_are_accepted(length: int) -> None:
    assert parse_secret("whsec_" + b64encode(b"k" * length).decode()) == b"k" * length
    assert parse_secret("k" * length) == b"k" * length


@pytest.mark.parametrize(
    "secret",
    [
        "hunter2hunter2hunter2hu",
        "hunter2" * 9 + "hu",
        "whsec_hunter2!hunter2?hunter2#hunter2!",
        "whsec_hünter2",
        "whsec_" + b64encode(b"hunter2" * 3 + b"hu").decode(),
        "whsec_" + b64encode(b"hunter2" * 9 + b"hu").decode(),
        "whsec_hunter2hunter2hunter2hunter2hunter2xy",
    ],
)
def test_an_unusable_secret_is_refused_without_repeating_it(secret: str) -> None:
    with pytest.raises(ValueError, match="The secret") as caught:
        parse_secret(secret)
    assert secret.removeprefix("whsec_") not in str(caught.value)
    assert "unter2" not in str(caught.value)
    assert caught.value.__cause__ is None
