"""Every integration keeps what its capabilities promise; so does one of another package, with the same suites."""

from cloud_sync.contract import capabilities
from cloud_sync.integrations.aws_iot import AwsIot
from cloud_sync.integrations.azure_iot import AzureIot
from cloud_sync.integrations.email import Email
from cloud_sync.integrations.golioth import Golioth
from cloud_sync.integrations.google_iot import GoogleIot
from cloud_sync.integrations.mqtt import Mqtt
from cloud_sync.integrations.mqtt_external import MqttExternal
from cloud_sync.integrations.slack import Slack
from cloud_sync.integrations.webhook import Webhook
from cloud_sync.registry import integration_classes
from tests.cloud_sync.other_package.neurogate_spool import Spool
from tests.contract import clouds
from tests.contract.configured import ConfigContract
from tests.contract.forwards import ForwardsContract, OverALineContract
from tests.contract.notifies import NotifiesContract
from tests.contract.other_side import Contract, folder, http_receiver
from tests.contract.receivers import mail_receiver, mail_side, slack_receiver, slack_side, webhook_receiver
from tests.contract.receives import ReceivesContract, external_sender, mqtt_sender
from tests.contract.tests_itself import TriedContract

SUITES: dict[str, type[Contract]] = {
    "forwards": OverALineContract,
    "receives": ReceivesContract,
    "notifies": NotifiesContract,
    "tests": TriedContract,
}
"""By capability."""


class TestEmail(ConfigContract, NotifiesContract, TriedContract):
    integration = Email
    other_side = staticmethod(mail_side)
    receiver = staticmethod(mail_receiver)


class TestSlack(ConfigContract, NotifiesContract, TriedContract):
    integration = Slack
    other_side = staticmethod(slack_side)
    receiver = staticmethod(slack_receiver)


class TestWebhook(ConfigContract, OverALineContract, NotifiesContract, TriedContract):
    integration = Webhook
    other_side = staticmethod(http_receiver)
    receiver = staticmethod(webhook_receiver)


class TestMqtt(ConfigContract, OverALineContract, ReceivesContract, TriedContract):
    integration = Mqtt
    other_side = staticmethod(clouds.mqtt)
    sender = staticmethod(mqtt_sender)


class TestMqttExternal(ConfigContract, ReceivesContract, TriedContract):
    integration = MqttExternal
    other_side = staticmethod(clouds.mqtt_external)
    sender = staticmethod(external_sender)


class TestAwsIot(ConfigContract, OverALineContract, TriedContract):
    integration = AwsIot
    other_side = staticmethod(clouds.aws_iot)


class TestAzureIot(ConfigContract, OverALineContract, TriedContract):
    integration = AzureIot
    other_side = staticmethod(clouds.azure_iot)


class TestGoogleIot(ConfigContract, OverALineContract, TriedContract):
    integration = GoogleIot
    other_side = staticmethod(clouds.google_iot)


class TestGolioth(ConfigContract, OverALineContract, TriedContract):
    integration = Golioth
    other_side = staticmethod(clouds.golioth_side)


class TestSpool(ConfigContract, ForwardsContract, TriedContract):
    integration = Spool
    other_side = staticmethod(folder)


def test_no_integration_and_none_of_its_capabilities_is_left_out() -> None:
    tried = {suite.integration.type: suite for suite in ConfigContract.__subclasses__()}
    for name, integration in integration_classes().items():
        for capability in capabilities(integration):
            assert issubclass(tried[name], SUITES[capability]), f"{name} {capability}"
