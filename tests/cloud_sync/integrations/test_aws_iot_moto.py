"""Somebody else's AWS (moto): it takes what is published, and no signature but the right one."""

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.session import Session
from moto.iotdata.models import iotdata_backends
from moto.server import ThreadedMotoServer

from cloud_sync.contract import AuthFailed, Ok
from tests.cloud_sync.integrations.clouds.aws import made, sent
from tests.cloud_sync.samples import batch_of

REGION, ACCOUNT = "eu-west-1", "123456789012"


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def set_checks(moto: str, *, after: str) -> None:
    """Say how many requests go unchecked."""
    request = urllib.request.Request(
        f"{moto}/moto-api/reset-auth", after.encode(), {"content-type": "text/plain"}, method="POST"
    )
    urllib.request.urlopen(request, timeout=5).close()


@pytest.fixture
def keys(moto: str) -> Iterator[dict[str, Any]]:
    """Of a user who may publish; from now on signatures are checked."""
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    iam = Session().create_client("iam", region_name=REGION, endpoint_url=moto, **keys)
    iam.create_user(UserName="gateway")
    statement = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName="gateway", PolicyName="publish", PolicyDocument=document)
    made = iam.create_access_key(UserName="gateway")["AccessKey"]
    iam.close()
    set_checks(moto, after="0")
    yield {
        "region": REGION,
        "endpoint": moto,
        "access_key_id": made["AccessKeyId"],
        "secret_access_key": made["SecretAccessKey"],
    }
    set_checks(moto, after="inf")


async def test_what_is_published_is_there_and_only_the_right_key_may(keys: dict[str, Any]) -> None:
    given = batch_of("d1", "d2")
    async with made(None, topic="$aws/rules/store/{device_id}", **keys) as it:
        assert await sent(it, given) == Ok()
        bodies = it.encode(given).split(b"\n")[1:]
    published = iotdata_backends[ACCOUNT][REGION].published_payloads
    assert published == [("$aws/rules/store/d1", bodies[0]), ("$aws/rules/store/d2", bodies[1])]
    async with made(None, **keys | {"secret_access_key": "another"}) as it:
        outcome = await sent(it, given)
    assert isinstance(outcome, AuthFailed)
    assert "SignatureDoesNotMatch" in outcome.reason
    assert len(published) == 2
