"""What is said of the clouds is so: every example is good, and every setting is named."""

import re
from pathlib import Path

import pytest

from cloud_sync.contract import IntegrationConfig
from cloud_sync.registry import check_config, integration_classes
from gateway.config import load
from gateway.config.schema import fields_of
from tests.cloud_sync.integrations.certificates import Authority
from tests.cloud_sync.integrations.clouds import aws, azure
from tests.cloud_sync.integrations.clouds.google import made_account

FOLDER = Path(__file__).parent.parent / "cloud_sync"
CLOUDS = ("aws_iot", "azure_iot", "google_iot")
PAGES = {"clouds.md": (*CLOUDS, "golioth"), "mqtt.md": ("mqtt",), "customers_broker.md": ("mqtt_external",)}
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": aws.KEY_ID,
    "AWS_SECRET_ACCESS_KEY": aws.SECRET_KEY,
    "GOLIOTH_PSK": "a key shared before",
    "MQTT_PASSWORD": "secret",
    "IOTHUB_CONNECTION_STRING": azure.POLICY.replace("hub.", "your-iot-hub.", 1),
}


def text_of(page: str) -> str:
    return (FOLDER / page).read_text("utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_every_example_is_good(page: str, tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path).identity("gateway")
    files = {"gateway.pem.crt": certificate, "gateway.pem.key": key, "google-key.json": made_account().key_file}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    path = tmp_path / "neurogate.toml"
    seen = []
    for example in re.findall(r"^```toml\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL):
        path.write_text(example, "utf-8")
        for table in load(path, ENVIRONMENT).settings.integrations:
            seen.append(check_config(table).type)
            assert isinstance(check_config(table), integration_classes()[seen[-1]].Config)
    assert set(seen) == set(PAGES[page])


@pytest.mark.parametrize(("page", "kind"), [(page, kind) for page, kinds in PAGES.items() for kind in kinds])
def test_every_setting_is_named(page: str, kind: str) -> None:
    for setting in fields_of(integration_classes()[kind].Config).keys() - IntegrationConfig.model_fields:
        assert f"`{setting}`" in text_of(page), setting


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_secret_of_the_vault_is_no_error_of_the_configuration(cloud: str, tmp_path: Path) -> None:
    """It is not there yet when the configuration is checked."""
    secrets = {
        "aws_iot": 'region = "eu-west-1"\naccess_key_id = "AKIAIOSFODNN7EXAMPLE"\nsecret_access_key = "${vault:ONE}"',
        "azure_iot": 'connection_string = "${vault:ONE}"\nhub_name = "hub"',
        "google_iot": 'service_account_key = "${vault:ONE}"',
    }
    path = tmp_path / "neurogate.toml"
    path.write_text(f'[[integrations]]\ntype = "{cloud}"\nname = "cloud"\n{secrets[cloud]}\n')
    [table] = load(path, {}).settings.integrations
    assert check_config(table).name == "cloud"
