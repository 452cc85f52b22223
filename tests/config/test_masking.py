"""What looks secret stays hidden."""

import time

import pytest
from pydantic import SecretStr

from gateway.config.masking import MASK, looks_secret, masked, without_credentials, without_tokens


@pytest.mark.parametrize(
    "key", ["password", "apiKey", "api_key", "X-Auth-Token", "Authorization", "connection_string", "ota_key"]
)
def test_names_of_secrets_are_known(key: str) -> None:
    assert looks_secret(key)


@pytest.mark.parametrize("key", ["port", "key", "integrations[secret-api].url", "max_inflight", "data_dir"])
def test_other_names_are_shown(key: str) -> None:
    assert not looks_secret(key)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mqtt://me:p@ss@host/x", "mqtt://host/x"),
        ("https://me@host https://a:b@c", "https://host https://c"),
        ("https://host/@scope?a=1&token=abc&b=2", f"https://host/@scope?a=1&token={MASK}&b=2"),
        ("Authorization: Bearer abc.def", f"Authorization: {MASK}"),
        ('{"password": "abc", "x": 1}', f'{{"password": "{MASK}", "x": 1}}'),
        ("nothing here", "nothing here"),
    ],
)
def test_credentials_in_text_are_removed(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


def test_secrets_deep_inside_are_masked() -> None:
    value = {"a": [SecretStr("x"), {"token": "y", "n": 1}], "secret": None}
    assert masked("extra", value) == {"a": [MASK, {"token": MASK, "n": 1}], "secret": None}


@pytest.mark.parametrize("nothing", [None, [], ()])
def test_nothing_is_shown_as_nothing(nothing: object) -> None:
    assert masked("secret", nothing) == nothing


def test_a_long_text_takes_no_long_time() -> None:
    started = time.perf_counter()
    without_credentials("a" * 200_000 + "-a.a" * 50_000)
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.org/hook", "https://example.org/hook"),
        ("https://a-long-host-name.example.org:8443/", "https://a-long-host-name.example.org:8443/"),
        (
            "https://hooks.slack.com/services/T0/B0/XXXXXXXXXXXXXXXX/x",
            f"https://hooks.slack.com/services/T0/B0/{MASK}/x",
        ),
        ("https://x/y?token=abc&n=1&flag", f"https://x/y?token={MASK}&n={MASK}&flag"),
    ],
)
def test_what_may_be_a_token_in_an_address_is_masked(url: str, shown: str) -> None:
    assert without_tokens(url) == shown
