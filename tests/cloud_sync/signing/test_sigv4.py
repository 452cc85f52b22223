"""botocore signs every request with the very same bytes."""

from datetime import UTC, datetime
from string import printable
from unittest import mock
from urllib.parse import quote

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.signing.sigv4 import Keys, signed_headers

TOPICS = st.text(min_size=1, max_size=60).filter(lambda topic: topic not in (".", ".."))
VALUES = st.text(printable.replace("\x0b", "").replace("\x0c", "").replace("\r", "").replace("\n", ""), max_size=20)
PAIRS = st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=4)


@given(
    method=st.sampled_from(["GET", "POST", "DELETE"]),
    host=st.sampled_from(
        [
            "https://x-ats.iot.eu-west-1.amazonaws.com",
            "https://Data.example.com:8443",
            "http://[::1]:5000",
            "http://h:80",
        ]
    ),
    path=st.one_of(TOPICS.map(lambda topic: f"/topics/{quote(topic, safe='')}"), st.just(""), st.just("/things/a b~c")),
    pairs=PAIRS,
    headers=st.dictionaries(st.sampled_from(["content-type", "X-Amz-Mqtt5-Correlation-Data", "accept"]), VALUES),
    body=st.binary(max_size=200),
    token=st.one_of(st.none(), st.text("abc/+=", min_size=1)),
    now_s=st.integers(0, 4_000_000_000),
)
def test_the_signature_is_that_of_botocore(
    method: str,
    host: str,
    path: str,
    pairs: list[tuple[str, str]],
    headers: dict[str, str],
    body: bytes,
    token: str | None,
    now_s: int,
) -> None:
    query = "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in pairs)
    url = f"{host}{path}" + (f"?{query}" if query else "")
    request = AWSRequest(method, url, headers=headers, data=body)
    signer = botocore.auth.SigV4Auth(Credentials("AKIDEXAMPLE", "wJalrXUtn/EXAMPLE", token), "iotdata", "eu-west-1")
    moment = datetime.fromtimestamp(now_s, UTC)
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=moment):
        signer.add_auth(request)
    keys = Keys("AKIDEXAMPLE", "wJalrXUtn/EXAMPLE", token)
    ours = signed_headers(method, url, headers, body, keys=keys, region="eu-west-1", service="iotdata", now_s=now_s)
    assert ours == {name: request.headers[name] for name in ours}
    assert {name.lower() for name in request.headers} == {name.lower() for name in headers} | set(ours)


def test_no_key_is_shown() -> None:
    assert "hidden" not in repr(Keys("AKIDEXAMPLE", "hidden-secret", "hidden-token"))
