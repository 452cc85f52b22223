"""The documentation does not lag: what the code offers is named on its page, and what the pages name exists."""

import re
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from standardwebhooks.webhooks import Webhook

from cloud_sync.contract import IntegrationConfig
from cloud_sync.integrations.webhook import Webhook as WebhookIntegration
from cloud_sync.registry import check_config
from gateway import __version__
from gateway.cli import command_line
from gateway.config import Settings, load
from gateway.metrics import Metrics
from gateway.parsers.routes import parser_of
from gateway.parsers.standard import parse_standard

HOUSE = Path(__file__).parent.parent
ROOMS = ("gateway", "cloud_sync", "firmware", "hardware")
README = (HOUSE / "README.md").read_text("utf-8")
WEBHOOK = (HOUSE / "cloud_sync" / "webhook.md").read_text("utf-8")
PARSERS = (HOUSE / "gateway" / "parsers" / "README.md").read_text("utf-8")
METRICS = (HOUSE / "gateway" / "metrics.md").read_text("utf-8")
MANUAL = (
    "README.md",
    "cloud_sync/destinations.md",
    "cloud_sync/notifications.md",
    "cloud_sync/webhook.md",
    "firmware/README.md",
    "gateway/README.md",
    "gateway/broker/README.md",
    "gateway/doctor/README.md",
    "gateway/metrics.md",
    "gateway/parsers/README.md",
    "gateway/sources/README.md",
    "gateway/tls/README.md",
    "gateway/web/README.md",
)
"""What an owner reads; guides and clouds are read by tests of their own."""
LINK = re.compile(r"\]\((?!https?://)([^)#]*)(?:#([^)]+))?\)")

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
BODY = b'{"type": "readings.batch"}'


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def text_of(page: str) -> str:
    return (HOUSE / page).read_text("utf-8")


def anchors(page: Path) -> set[str]:
    """Return what a link may lead to within a page: its headings, as they are written in an address."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def metric_names() -> Iterator[str]:
    for family in Metrics().registry.collect():
        yield f"{family.name}_total" if family.type == "counter" else family.name


def commands(group: Any, name: str = "neurogate") -> Iterator[str]:
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}"


COMMANDS = sorted(commands(typer.main.get_command(command_line())))


@pytest.mark.parametrize("metric", sorted(metric_names()))
def test_every_metric_is_named(metric: str) -> None:
    assert f"`{metric}" in METRICS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_named(command: str) -> None:
    assert command in README


def test_every_command_that_is_named_exists() -> None:
    lines = [line for page in MANUAL for block in blocks("sh", text_of(page)) for line in block.splitlines()]
    used = [line.split("neurogate ", 1)[1] for line in lines if re.match(r"(sudo )?neurogate \w", line)]
    assert used
    for line in used:
        assert any(f"neurogate {line} ".startswith(f"{command} ") for command in COMMANDS), line


def test_the_payload_is_one_that_the_gateway_takes() -> None:
    payload = blocks("json", README)[0]
    assert parse_standard(payload.encode()).bad_sensors == ()


@pytest.mark.parametrize("page", [page for page in MANUAL if blocks("toml", text_of(page))])
def test_every_example_of_a_configuration_is_good(page: str, tmp_path: Path) -> None:
    path = tmp_path / "neurogate.toml"
    (tmp_path / "contract.key").write_text("x")
    environ = dict.fromkeys(re.findall(r"\$\{env:(\w+)\}", text_of(page)), SECRET)
    for example in blocks("toml", text_of(page)):
        path.write_text(example, "utf-8")
        for table in load(path, environ).settings.integrations:
            assert check_config(table).name == table.name


@pytest.mark.parametrize(
    "setting", sorted(WebhookIntegration.Config.model_fields.keys() - IntegrationConfig.model_fields)
)
def test_every_setting_of_a_webhook_is_named(setting: str) -> None:
    assert f"`{setting}`" in WEBHOOK


def test_the_routes_are_ones_that_the_gateway_takes_and_read_the_sample() -> None:
    tables = [tomllib.loads(block) for block in blocks("toml", PARSERS) if "[[ingest.routes]]" in block]
    routes = [route for table in tables for route in Settings.model_validate(table).ingest.routes]
    assert [route.parser for route in routes] == ["custom", "senml", "vmark"]
    (sample,) = re.findall(r"^`({.*}})`:$", PARSERS, re.MULTILINE)
    (found,) = parser_of(routes[0]).parse(sample.encode(), "factory/press-4/measurements")
    climate = {"temperature_c": 21.5, "humidity_percent": 41.2, "unit": "Cel"}
    assert (found.device_id, found.fields["sensors"]) == ("press-4", {"climate": climate})


def test_the_python_snippet_verifies_what_the_specification_signs() -> None:
    (snippet,) = blocks("python", WEBHOOK)
    names: dict[str, Any] = {}
    exec(compile(snippet, "webhook.md", "exec"), names)
    is_genuine = names["is_genuine"]
    now = datetime.now(UTC)
    signature = Webhook(SECRET).sign("msg_1", now, BODY.decode())
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(int(now.timestamp()))}
    assert is_genuine(SECRET, headers | {"webhook-signature": f"v1,AAAA {signature}"}, BODY)
    assert not is_genuine(SECRET, headers | {"webhook-signature": signature}, BODY + b" ")
    recorded = headers | {"webhook-signature": signature, "webhook-timestamp": "1700000000"}
    assert not is_genuine(SECRET, recorded, BODY)


def test_every_link_leads_somewhere() -> None:
    pages = [HOUSE / page for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    pages += [page for room in ROOMS for page in (HOUSE / room).rglob("*.md")]
    for page in pages:
        for target, anchor in LINK.findall(page.read_text("utf-8")):
            found = page.parent / target if target else page
            assert found.exists(), f"{page}: {target}"
            assert not anchor or anchor in anchors(found), f"{page}: {target}#{anchor}"


def test_a_page_is_no_longer_than_somebody_reads() -> None:
    """The README is for a stranger: what only some need stands on a page of its own."""
    assert len(README.splitlines()) <= 450


def test_the_changelog_and_the_installation_name_this_version() -> None:
    assert f"[{__version__}]" in (HOUSE / "CHANGELOG.md").read_text("utf-8")
    assert f"neurogate-{__version__}-py3" in README
