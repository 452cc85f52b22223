"""What the platform's documents tell people to send works here, with host, token and ids changed: by curl and by fetch.

The answers are held against what the documents say that a row has. One gateway, as its own process, for all of them.
"""

import email.message
import json
import queue
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message
from standardwebhooks.webhooks import Webhook

from cloud_sync.registry import integration_classes
from tests.gateway_process import WAIT_S, GatewayProcess
from tests.ports import free_port
from tests.web import documented_requests as documented

COLUMNS = {
    *("id", "organization_id", "integration_type", "name", "project_id", "base_url", "settings", "status"),
    *("sync_enabled", "sync_interval_seconds", "sync_direction", "conflict_resolution"),
    *("webhook_enabled", "webhook_url", "last_sync_at", "last_sync_status", "sync_error", "created_at", "updated_at"),
}
"""Of `device_integrations`, but for the two that nothing shows: api_key_encrypted and webhook_secret."""


NOTIFYING = """
[[integrations]]
type = "slack"
name = "team"
webhook_url = "{url}/services/T0/B0/x"
[[integrations]]
type = "webhook"
name = "workflow"
url = "{url}/workflow"
[[integrations]]
type = "email"
name = "mail"
smtp_host = "127.0.0.1"
smtp_port = {smtp_port}
from_email = "noreply@yourcompany.com"
use_tls = false
"""
"""What the notifications of the documents go to."""


class Receiver(ThreadingHTTPServer):
    """What callbacks, webhooks and Slack's addresses lead to."""

    daemon_threads = True

    def __init__(self) -> None:
        self.posts: list[tuple[str, dict[str, str], bytes]] = []
        self.arrived = threading.Condition()
        super().__init__(("127.0.0.1", 0), _Post)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def post_to(self, path: str) -> tuple[dict[str, str], bytes]:
        """Return what was POSTed there, and forget it."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: any(to == path for to, *_ in self.posts), WAIT_S), path
            (found,) = [one for one in self.posts if one[0] == path]
            self.posts.remove(found)
        return found[1:]


class _Post(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
        with self.server.arrived:
            self.server.posts.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            self.server.arrived.notify_all()

    def log_message(self, *_: object) -> None:
        pass


class Mailbox(Message):
    """What mail comes to."""

    def __init__(self) -> None:
        super().__init__()
        self.mails: queue.Queue[email.message.Message] = queue.Queue()

    def handle_message(self, message: email.message.Message) -> None:
        self.mails.put(message)


@dataclass
class Platform:
    """A gateway, seen as the platform that the documents speak of."""

    url: str
    token: str
    organization_id: str
    receiver: Receiver
    mailbox: Mailbox

    def curl(self, command: str, integration_id: str = "") -> tuple[int, Any]:
        """Run a command as it stands in a document, and return status and answer."""
        for theirs, ours in {
            documented.HOST: self.url,
            documented.TOKEN: self.token,
            documented.ORGANIZATION: self.organization_id,
            documented.INTEGRATION: integration_id,
            documented.CALLBACK_HOST: self.receiver.url,
        }.items():
            command = command.replace(theirs, ours)
        shell = command.rstrip() + " -sS -w '\\n%{http_code}'"
        done = subprocess.run(["bash", "-c", shell], capture_output=True, timeout=WAIT_S, check=True)
        body, _, status = done.stdout.decode().rpartition("\n")
        return int(status), json.loads(body) if body else None

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        command = f"curl -X {method} '{documented.HOST}{path}' -H 'Authorization: Bearer {documented.TOKEN}'"
        if body is not None:
            command += f" -H 'Content-Type: application/json' -d '{json.dumps(body)}'"
        return self.curl(command)

    def fetch(self, script: str) -> tuple[int, Any]:
        """Run what a browser would, as it stands in a document; its `response` is what comes back."""
        for theirs, ours in {"'/functions": f"'{self.url}/functions", "'org-id'": f"'{self.organization_id}'"}.items():
            script = script.replace(theirs, ours)
        script = f"const session = {{ access_token: '{self.token}' }};\n{script}\n"
        script += "console.log(JSON.stringify([response.status, await response.json()]))"
        done = subprocess.run(
            ["node", "--input-type=module", "-e", script], capture_output=True, timeout=WAIT_S, check=True
        )
        status, answer = json.loads(done.stdout)
        return status, answer


def configuration(integration_type: str) -> dict[str, Any]:
    """Return what a document shows as one's configuration."""
    script = f"console.log(JSON.stringify({documented.CONFIGURATIONS[integration_type]}))"
    done = subprocess.run(["node", "-e", script], capture_output=True, timeout=WAIT_S, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    process = GatewayProcess(tmp_path_factory.mktemp("platform"))
    with (process.folder / "neurogate.toml").open("a") as file:
        file.write('[egress]\npolicy = "any"\n')
    mailbox = Mailbox()
    smtp = Controller(mailbox, hostname="127.0.0.1", port=free_port())
    smtp.start()
    with Receiver() as receiver:
        with (process.folder / "neurogate.toml").open("a") as file:
            file.write(NOTIFYING.format(url=receiver.url, smtp_port=smtp.port))
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        try:
            process.start()
            token = process.json("token", "create", "frontend", "--role", "admin")["token"]
            yield Platform(f"http://127.0.0.1:{process.http_port}", token, "default", receiver, mailbox)
        finally:
            smtp.stop()
            process.kill()
            receiver.shutdown()


def of_the_api(platform: Platform) -> list[Any]:
    """List what integrations there are, but for those of the file."""
    status, listed = platform.ask("GET", f"/functions/v1/integrations?organization_id={documented.ORGANIZATION}")
    assert status == 200
    return [one for one in listed["integrations"] if one["origin"] == "api"]


def test_an_integration_is_made_as_the_frontend_does(platform: Platform) -> None:
    status, made = platform.fetch(documented.CREATE_INTEGRATION)
    assert (status, made.keys() >= COLUMNS) == (201, True), made
    assert (made["integration_type"], made["name"]) == ("mqtt", "Production MQTT Broker")
    assert made["settings"] == {
        "broker_url": "mqtt://broker.example.com",
        "port": 1883,
        "username": "user",
        "use_tls": True,
        "topics": "devices/+/telemetry",
    }
    assert (made["secrets_set"], made["base_url"]) == (["password"], "mqtt://broker.example.com")
    assert (made["organization_id"], made["status"]) == (platform.organization_id, "active")

    (listed,) = of_the_api(platform)
    assert {**listed, "health": None} == {**made, "health": None}  # it is connecting

    changes = {"id": made["id"], "organization_id": "default", "status": "inactive", "sync_direction": "import"}
    status, changed = platform.ask("PATCH", "/functions/v1/integrations", changes)
    assert (status, changed["status"], changed["sync_direction"]) == (200, "inactive", "import")
    assert (changed["secrets_set"], changed["settings"]) == (["password"], made["settings"])

    assert platform.ask("DELETE", "/functions/v1/integrations", {"id": made["id"]}) == (204, None)
    assert of_the_api(platform) == []


@pytest.mark.parametrize("integration_type", sorted(documented.CONFIGURATIONS.keys() & integration_classes().keys()))
def test_a_configuration_is_taken_as_the_documents_show_it(platform: Platform, integration_type: str) -> None:
    said = configuration(integration_type)
    if "secret" in said:  # the documents' own is too short to sign with
        said["secret"] += "-of-more-than-24-bytes"
    secrets = {"password", "secret", "custom_headers", "webhook_url"} & said.keys()
    for form in ({"settings": said}, {"api_key_encrypted": json.dumps(said)}):
        body = {"organization_id": platform.organization_id, "integration_type": integration_type, "name": "As shown"}
        status, made = platform.ask("POST", "/functions/v1/integrations", body | form | {"status": "inactive"})
        assert status == 201, made
        assert set(made["secrets_set"]) == secrets
        assert made["settings"] == {key: value for key, value in said.items() if key not in secrets}
        assert platform.ask("DELETE", f"/functions/v1/integrations?id={made['id']}") == (204, None)


def test_what_is_published_by_curl_goes_to_the_callback_that_curl_asked_for(platform: Platform) -> None:
    status, subscription = platform.curl(documented.MQTT_SUBSCRIBE, "integration-1")
    assert (status, subscription["topics"]) == (201, ["devices/+/telemetry"]), subscription
    status, published = platform.curl(documented.MQTT_PUBLISH, "integration-1")
    assert (status, published["published"]) == (200, 1), published
    headers, body = platform.receiver.post_to("/mqtt-callback")
    (message,) = Webhook(subscription["secret"]).verify(body, headers)["messages"]
    assert (message["topic"], message["payload"]) == ("devices/sensor-123/telemetry", {"temperature": 23.5})


# What is told


def test_a_notification_is_sent_by_the_documented_curl(platform: Platform) -> None:
    status, accepted = platform.curl(documented.SEND_NOTIFICATION)
    assert (status, accepted["integration_type"]) == (202, "slack"), accepted
    _, body = platform.receiver.post_to("/services/T0/B0/x")
    assert "Test notification" in json.loads(body)["text"]
    status, log = platform.ask("GET", "/functions/v1/notification-log")
    (logged,) = [one for one in log["notifications"] if one["id"] == accepted["id"]]
    assert (status, logged["message"], logged["priority"]) == (200, "Test notification", "high")


@pytest.mark.parametrize("said", documented.FRONTEND_NOTIFICATIONS, ids=lambda said: str(said["integration_type"]))
def test_a_notification_is_sent_as_the_frontend_does(platform: Platform, said: dict[str, Any]) -> None:
    body = {"organization_id": platform.organization_id} | said
    status, accepted = platform.ask("POST", "/functions/v1/send-notification", body)
    assert status == 202, accepted
    if said["integration_type"] == "email":
        mail = platform.mailbox.mails.get(timeout=WAIT_S)
        assert (mail["X-RcptTo"], said["subject"] in mail["Subject"]) == ("user@example.com", True)
        return
    path = "/services/T0/B0/x" if said["integration_type"] == "slack" else "/workflow"
    _, told = platform.receiver.post_to(path)
    assert said["message"] in json.dumps(json.loads(told), ensure_ascii=False)
