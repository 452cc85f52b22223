"""A gateway as its own process, two organisations that have the same things, and everybody's secrets.

A process, because hypothesis does not bear that anybody else uses `random`, and its log is read as an owner would.
"""

import asyncio
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from gateway.cli import gateway_link
from gateway.model.roles import ROLES
from gateway.operations.credentials import add_credential
from gateway.operations.devices import add_device
from gateway.operations.tokens import create_token
from tests.gateway_process import WAIT_S, GatewayProcess, reading

HOOK_SECRET = "whsec_a-recognisable-secret-of-the-hook"
DESTINATION = "nowhere"
"""What has refused a reading of each."""
NOWHERE = "https://hook.invalid/"
"""Where every callback goes: nobody is asked whom the name belongs to."""

_MORE = f"""
[[integrations]]
type = "email"
name = "mail"
smtp_host = "mail.invalid"
from_email = "gateway@example.org"
[ingest]
hook_secret = "{HOOK_SECRET}"
hook_rate_limit_per_minute = 0
""" + "".join(
    f"""
[[integrations]]
type = "golioth"
name = "pipeline-of-{name}"
organizations = ["{name}"]
webhook_secret = "whsec_a-recognisable-secret-of-{name}"
"""
    for name in ("alpha", "beta")
)
_FORWARDED = '[http]\ntrusted_proxies = ["127.0.0.1"]'
"""So that those who show something wrong are many, and do not wait longer each time."""


@dataclass
class Organization:
    """An organisation, and what is only its own: each of its rows says `mark`."""

    name: str
    mark: str
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    """What those who belong to it send, by who they are."""
    ids: dict[str, str] = field(default_factory=dict)
    """What is its own and may be asked for by its id, or be lost: by the path's last word before it."""


@dataclass
class TwoOrganizations:
    """What runs."""

    url: str
    organizations: list[Organization]
    secrets: set[str]
    log: list[str]
    state_db: Path
    log_db: Path
    headers: dict[str, str] = field(default_factory=dict)
    """What an owner of the site sends."""


@contextmanager
def running(folder: Path) -> Iterator[TwoOrganizations]:
    """Run it."""
    process = GatewayProcess(folder)
    configuration = folder / "neurogate.toml"
    configuration.write_text(configuration.read_text().replace("[http]", _FORWARDED) + _MORE)
    process.start()
    log: list[str] = []
    assert process.process is not None
    assert process.process.stderr is not None
    stderr = process.process.stderr
    listening = threading.Thread(target=lambda: log.extend(line.decode() for line in stderr))
    listening.start()
    try:
        key = (folder / "data" / "password.key").read_bytes().hex()
        site = TwoOrganizations(
            f"http://127.0.0.1:{process.http_port}",
            [],
            {HOOK_SECRET, key},
            log,
            folder / "data" / "state.db",
            folder / "data" / "log.db",
        )
        asyncio.run(_organizations(process, site))
        for one in site.organizations:
            _fill(site, one)
        yield site
    finally:
        process.process.terminate()
        listening.join(WAIT_S)
        process.process.wait(WAIT_S)
        stderr.close()


async def _organizations(process: GatewayProcess, site: TwoOrganizations) -> None:
    async with gateway_link.connect(process.settings) as link:
        for name in ("alpha", "beta"):
            one = Organization(name, f"only-of-{name}")
            for role in ROLES:
                named = f"{name}-{role}"
                token = (await link.call(create_token, name=named, organization_id=name, role=role)).token
                one.headers[role] = {"Authorization": f"Bearer {token}"}
                site.secrets.add(token)
            spare = await link.call(create_token, name="spare", organization_id=name, role="member")
            lent = await link.call(
                add_device, organization_id=name, device_id=f"{one.mark}-lent", metadata={"room": one.mark}
            )
            one.ids = {"organizations": name, "tokens": spare.id, "devices": lent.device_id}
            site.secrets |= {spare.token, lent.password}
            device = await link.call(add_device, organization_id=name, device_id=one.mark, metadata={"room": one.mark})
            hub = await link.call(add_credential, name=one.mark, organization_id=name)
            one.headers["a device's password"] = {"x-api-key": device.password}
            one.headers["a hub's password"] = {"x-api-key": hub.password}
            shown = f"whsec_a-recognisable-secret-of-{name}"
            one.headers["a pipeline of Golioth"] = {"x-api-key": shown, "Ce-Source": one.mark}
            site.secrets |= {device.password, hub.password, shown}
            site.organizations.append(one)
        of_site = (await link.call(create_token, name="site", organization_id=None, role="owner")).token
        site.headers = {"Authorization": f"Bearer {of_site}"}
        site.secrets.add(of_site)


def _fill(site: TwoOrganizations, one: Organization) -> None:
    def post(path: str, who: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = one.headers[who] | {"Content-Type": "application/json"}
        answer = requests.post(site.url + path, data=json.dumps(body), headers=headers, timeout=WAIT_S)
        assert answer.ok, answer.text
        told: dict[str, Any] = answer.json()
        return told

    post("/api/v1/sensor-data", "a device's password", reading(one.mark, 1) | {"note": one.mark})
    bad = {"topic": f"devices/{one.mark}/telemetry", "payload": f"no reading of {one.mark}"}
    assert post("/api/v1/mqtt-listener", "admin", bad)["results"][0]["reading"] == "quarantined"
    with closing(sqlite3.connect(site.log_db, timeout=WAIT_S)) as db, db:  # nobody can ask for a dead letter
        db.execute(
            """INSERT INTO dead_letters (destination, row, organization_id, device_id, boot_id, time_ms, time_source,
                received_at_ms, payload, reason, attempts, first_at_ms, last_at_ms, provisional)
            SELECT ?1, max(id), ?2, ?3, '', 0, 0, 0, '{}', ?3, 1, 0, 0, 0 FROM device_telemetry_history""",
            (DESTINATION, one.name, one.mark),
        )
    wanted = {"topics": [f"devices/{one.mark}/#"], "callback_url": NOWHERE}
    subscription = post("/api/v1/mqtt-hybrid/subscribe", "admin", wanted)
    one.ids["subscriptions"] = subscription["id"]
    site.secrets.add(subscription["secret"])
    signing = f"whsec-of-the-integration-of-{one.name}"
    site.secrets.add(signing)
    settings = {"url": NOWHERE, "secret": signing, "devices": [one.mark]}
    integration = {"integration_type": "webhook", "name": one.mark, "settings": settings, "status": "inactive"}
    one.ids["integrations"] = post("/api/v1/integrations", "admin", integration)["id"]
    post(f"/api/v1/devices/{one.ids['devices']}/commands", "admin", {"method": one.mark, "id": one.mark})
    with closing(sqlite3.connect(site.state_db, timeout=WAIT_S)) as db, db:  # nobody can ask for an alert
        added = db.execute(
            """INSERT INTO alerts
            (organization_id, kind, severity, subject, message, first_at, last_at, count, state)
            VALUES (?1, 'quota_exceeded', 'low', ?2, ?2, 0, 0, 1, 'open')""",
            (one.name, one.mark),
        )
        one.ids["alerts"] = str(added.lastrowid)
    told = {"integration_type": "email", "message": one.mark, "data": {"device_id": one.mark}}
    one.ids["notification-log"] = post("/api/v1/send-notification", "admin", told)["id"]
    message = {"topic": f"devices/{one.mark}/status", "payload": {"note": one.mark}, "retain": True}
    post("/api/v1/mqtt-hybrid/publish", "admin", {"messages": [message]})
