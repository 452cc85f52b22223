"""Settings as the platform's documents have them, and what cannot be meant, told by the same names."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cloud_sync.integrations.mqtt_external import MqttExternal
from cloud_sync.registry import check_config
from gateway.config import load

DOCUMENTED: dict[str, Any] = {
    "brokerUrl": "mqtt://142.93.60.126",
    "port": 1883,
    "username": "optional-username",
    "password": "optional-password",
    "clientId": "netneural-subscriber-{integration_id}",
    "topics": "$sys/version/+/devices/#",
    "payloadParser": "vmark",
    "useTls": False,
}
MAPPING = {"device_id": {"topic_level": 2}, "sensors": {"climate": {"t": "t"}}}


def config(**settings: Any) -> MqttExternal.Config:
    given = {"type": "mqtt_external", "name": "row-7"} | DOCUMENTED | settings
    return MqttExternal.Config.model_validate({name: value for name, value in given.items() if value is not None})


def test_the_documented_configuration_is_good() -> None:
    made = config()
    assert made.claims("site-1") == ("the client netneural-subscriber-row-7 of 142.93.60.126:1883",)
    assert config(clientId=None).claims("site-1") == ("the client neurogate-site-1-row-7 of 142.93.60.126:1883",)
    assert config(topics=["a/+", "b"]).topics == config(topics="a/+, b").of_mqtt().topics == ("a/+", "b")
    assert (
        config(brokerUrl="MQTTS://Broker.example", port=None, useTls=None)
        .claims("x")[0]
        .endswith("broker.example:8883")
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"brokerUrl": "http://x.example"}, "brokerUrl begins with http://"),
        ({"brokerUrl": "mqtt://u:p@x.example"}, "brokerUrl contains credentials"),
        ({"brokerUrl": "mqtts://x.example", "port": None}, "useTls says that it does not"),
        ({"username": None}, "needs a username"),
        ({"topics": "a/#/b"}, "is no topic filter"),
        ({"topics": ""}, "is no topic filter"),
        ({"topics": None}, "topics"),
        ({"payloadParser": "custom"}, "needs a mapping"),
        ({"payloadParser": "standard", "mapping": MAPPING}, "takes no mapping"),
        ({"organizations": ["a", "b"]}, "no more than one in organizations"),
        ({"broker_url": "x.example"}, "broker_url"),
        ({"client_cert": "no PEM"}, "no certificate"),
        ({"client_key": "planted-4711"}, "no private key"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words) as refused:
        config(**settings)
    assert "u:p@" not in str(refused.value)
    assert "4711" not in str(refused.value)


def test_secrets_of_the_vault_are_no_error_before_it_is_open(tmp_path: Path) -> None:
    path = tmp_path / "neurogate.toml"
    secrets = {"password": "${vault:ONE}", "client_cert": "${vault:TWO}", "client_key": "${vault:THREE}"}
    settings = {"type": "mqtt_external", "name": "plant"} | DOCUMENTED | secrets
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    path.write_text("\n".join(["[[integrations]]", *lines]))
    (table,) = load(path, {}).settings.integrations
    assert check_config(table).name == "plant"
