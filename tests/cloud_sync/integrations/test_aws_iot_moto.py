"""Somebody else's AWS (moto): it takes what is published, and no signature but the right one."""

import json
import shlex
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session
from moto.iotdata.models import iotdata_backends
from moto.server import ThreadedMotoServer

from cloud_sync.contract import AuthFailed, Ok
from tests.cloud_sync.integrations.clouds.aws import made
from tests.cloud_sync.samples import batch_of, sent
from tests.guides.pages import blocks, integration, replaced

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


def carried_out(command: str, iam: Any, folder: Path) -> dict[str, Any]:
    """Carry out a command of the AWS CLI, as that does: its words are the names of the API, spelled otherwise."""
    _, service, operation, *options = shlex.split(command)
    assert service == "iam"
    words = zip(options[::2], options[1::2], strict=True)
    given = {"".join(part.capitalize() for part in name[2:].split("-")): value for name, value in words}
    files = {name: (folder / value[7:]).read_text() for name, value in given.items() if value.startswith("file://")}
    answer: dict[str, Any] = getattr(iam, operation.replace("-", "_"))(**given | files)
    return answer


async def test_by_the_guides_commands_and_settings_a_user_publishes_for_its_rule(moto: str, tmp_path: Path) -> None:
    [policy] = blocks("aws.md", "json")
    (tmp_path / "policy.json").write_text(policy)
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    iam = Session().create_client("iam", region_name=REGION, endpoint_url=moto, **keys)
    commands = [line for block in blocks("aws.md", "sh") for line in block.splitlines() if line.startswith("aws ")]
    answers = [carried_out(command, iam, tmp_path) for command in commands]
    # What moto checks is not what AWS does: it knows no resources here, and calls the service by its signing name.
    document = json.loads(policy.replace('"iot:', '"iotdata:'))
    document["Statement"][0]["Resource"] = "*"
    iam.put_user_policy(UserName="neurogate", PolicyName="publish", PolicyDocument=json.dumps(document))
    iam.close()
    key = answers[-1]["AccessKey"]
    mine = {"AKIAIOSFODNN7EXAMPLE": key["AccessKeyId"], "${vault:AWS_SECRET_ACCESS_KEY}": key["SecretAccessKey"]}
    [toml] = blocks("aws.md", "toml")
    given = batch_of("d1")
    set_checks(moto, after="0")
    try:
        async with integration(f'{replaced(toml, mine)}endpoint = "{moto}"\n', tmp_path) as it:
            assert await sent(it, given) == Ok()
    finally:
        set_checks(moto, after="inf")
    published = iotdata_backends[ACCOUNT]["eu-central-1"].published_payloads
    assert [topic for topic, _ in published] == ["$aws/rules/store_readings/d1"]
