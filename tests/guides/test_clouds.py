"""What the guides to Azure, Google and Golioth say is taken by strict ones, with address and keys changed alone."""

import json
from pathlib import Path

from cloud_sync.contract import Ok
from tests.cloud_sync.integrations.clouds import azure
from tests.cloud_sync.integrations.clouds.golioth import PSK, fake_golioth
from tests.cloud_sync.integrations.clouds.google import fake_pubsub, made_account
from tests.cloud_sync.samples import batch, sent
from tests.guides.pages import blocks, integration, replaced


async def test_azure_has_the_readings_of_the_device_that_was_registered(tmp_path: Path) -> None:
    [toml] = blocks("azure.md", "toml")
    given = batch(2)
    async with azure.fake_hub() as hub:
        hub.devices = {"esp32-kitchen"}
        settings = replaced(toml, {"${vault:IOTHUB_CONNECTION_STRING}": azure.POLICY, "your-iot-hub": "hub"})
        async with integration(f'{settings}endpoint = "{hub.endpoint}"\n', tmp_path) as it:
            assert await sent(it, given) == Ok()
        [(device, messages)] = hub.received
    assert (device, [json.loads(one["body"])["seq"] for one in messages]) == ("esp32-kitchen", [1, 2])


async def test_google_has_them_in_the_topic_that_was_made(tmp_path: Path) -> None:
    [toml] = blocks("google.md", "toml")
    account, given = made_account(), batch(2)
    (tmp_path / "google-key.json").write_text(account.key_file)
    async with fake_pubsub(account) as pubsub:
        pubsub.topics = {"projects/your-project-id/topics/telemetry"}
        async with integration(f'{toml}endpoint = "{pubsub.endpoint}"\n', tmp_path) as it:
            assert await sent(it, given) == Ok()
        [messages] = pubsub.received
    assert [(one["attributes"]["deviceId"], json.loads(one["data"])["seq"]) for one in messages] == [
        ("esp32-kitchen", 1),
        ("esp32-kitchen", 2),
    ]


async def test_golioth_has_them_in_the_gateways_stream(tmp_path: Path) -> None:
    [toml] = blocks("golioth.md", "toml")
    given = batch(2)
    async with fake_golioth(devices={"gateway@your-project": PSK}) as golioth:
        settings = replaced(toml, {"${vault:GOLIOTH_PSK}": PSK})
        async with integration(f'{settings}host = "127.0.0.1"\nport = {golioth.port}\n', tmp_path) as it:
            assert await sent(it, given) == Ok()
        [(identity, path, readings)] = golioth.streamed
    assert (identity, path) == ("gateway@your-project", ".s/readings")
    assert [one["seq"] for one in readings] == [1, 2]
