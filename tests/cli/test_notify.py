"""`neurogate notify`: what it prints, with a gateway and without one."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import command_line
from gateway.operations.logged_notification import LoggedNotification
from tests.gateway_process import GatewayProcess

INTEGRATIONS = """
[egress]
policy = "any"
[[integrations]]
type = "slack"
name = "chat"
webhook_url = "{url}"
[[integrations]]
type = "email"
name = "mail"
smtp_host = "mail.invalid"
from_email = "gateway@example.org"
[integrations.notify.templates."alert.*"]
subject = "ALARM {{{{title}}}}"
"""


@pytest.fixture
def channel() -> Iterator[str]:
    class Ok(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Ok) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/services/T0/B0/secret-of-the-channel"
        server.shutdown()


def test_a_person_tries_it_and_sees_what_became_of_it(
    own_site: GatewayProcess, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = own_site.folder / "neurogate.toml"
    configuration.write_text(configuration.read_text() + INTEGRATIONS.format(url=channel))

    def notify(*arguments: str) -> Result:
        """Only the gateway is a process of its own: to start one costs more than all that is asked."""
        return CliRunner().invoke(command_line(["notify"]), ["notify", *arguments, "--config", str(configuration)])

    shown = notify("preview", "mail", "--kind", "alert.raised", "--subject", "Pump")
    assert shown.output.startswith("Subject: ALARM Pump\n\nThis is how a notification looks.")
    assert "No gateway runs" in str(notify("test", "chat").exception)

    own_site.start()
    tried = notify("test", "chat")
    assert (tried.output, tried.exit_code) == ("chat has taken it.\n", 0)
    failed = notify("test", "mail", "--message", "Hello.")
    assert (failed.output, failed.exit_code) == ("It was not sent: nobody is named as recipient\n", 1)
    mail, chat = json.loads(notify("log", "--json").output)
    assert [(one["integration_id"], one["status"], one["kind"]) for one in (mail, chat)] == [
        ("mail", "failed", "test"),
        ("chat", "sent", "test"),
    ]
    assert mail.keys() == LoggedNotification.__annotations__.keys(), "as the API shows it"
    assert "= Hello. =" in notify("preview", "chat", "--message", "= Hello. =").output
    assert "no notification" in str(notify("resend", "nothing").exception)

    monkeypatch.setenv("CHANNEL", channel)
    words = ["integration", "add", "slack", "Night shift", "--secret", "webhook_url=env:CHANNEL"]
    added = CliRunner().invoke(command_line(["integration"]), [*words, "--config", str(configuration)])
    assert added.exit_code == 0, added.exception
    assert "= Hello. =" in notify("preview", "Night shift", "--message", "= Hello. =").output
    assert notify("test", "Night shift").output == "Night shift has taken it.\n"
    own_site.kill()

    assert notify("resend", "--all").output == "1 go out again, while a gateway runs.\n"
    assert [one["id"] for one in json.loads(notify("log", "--status", "retrying", "--json").output)] == [mail["id"]]
    table = notify("log").output
    assert mail["id"] in table
    assert "nobody is named as recipient" in table
    assert "secret-of-the-channel" not in table
