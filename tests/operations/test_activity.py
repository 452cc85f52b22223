"""What changes the log, not the state, is in the activity log too; and what changes nothing is not."""

from contextlib import aclosing

from gateway.cli.gateway_link import connect
from gateway.operations.activity import page_activity
from gateway.operations.certificates import init_certificates, issue_certificate, renew_certificates
from gateway.operations.credentials import add_credential, revoke_credential
from gateway.operations.dead_letters import drop_dead_letters
from gateway.operations.devices import rotate_device
from gateway.operations.erase import erase_device
from gateway.operations.secrets import remove_secret, rotate_vault, set_secret
from tests.site import Site
from tests.web.api import asker


async def entries(site: Site) -> list[tuple[str | None, str, str, str]]:
    """Return everybody's, the oldest first."""
    running = site.gateway._running.site
    rows = await page_activity(running, organization_id=None, everybodys=True, limit=100)
    return [(one.organization_id, one.actor, one.action, one.subject) for one in rows[::-1]]


async def test_a_command_is_noted_once_it_changes_something(site: Site) -> None:
    before = await entries(site)
    assert before[-1] == ("default", "cli", "device.add", "kitchen")
    await site.command(drop_dead_letters, rows=[], destination=None)  # there is none
    async with connect(site.settings) as link:
        steps = link.stream(erase_device, organization_id="default", device_id="kitchen")
        async with aclosing(steps):
            assert [one async for one in steps]
    await site.command(rotate_device, organization_id="default", device_id="kitchen")
    await site.command(add_credential, name="tool", organization_id=None)
    await site.command(revoke_credential, username="tool")
    await site.command(set_secret, name="cloud", value="a-recognisable-secret")
    await site.command(rotate_vault)
    await site.command(remove_secret, name="cloud")
    await site.command(init_certificates)
    await site.command(renew_certificates)
    await site.command(renew_certificates, authority=True)
    await site.command(issue_certificate, organization_id="default", device_id="kitchen")
    assert (await entries(site))[len(before) :] == [
        ("default", "cli", "device.erase", "kitchen"),
        ("default", "cli", "credential.rotate", "default/kitchen"),
        (None, "cli", "credential.add", "tool"),
        (None, "cli", "credential.revoke", "tool"),
        (None, "cli", "secret.set", "cloud"),
        (None, "cli", "vault.rotate", "vault"),
        (None, "cli", "secret.remove", "cloud"),
        (None, "cli", "certificate.init", "authority"),
        (None, "cli", "certificate.renew", "server"),
        (None, "cli", "certificate.renew", "authority"),
        ("default", "cli", "certificate.issue", "kitchen"),
    ]


async def test_a_test_of_the_broker_is_no_change(site: Site) -> None:
    before = await entries(site)
    owner = await asker(site, "owner")
    status, tested = await owner.post("/api/v1/mqtt-broker", {"operation": "test"})
    assert (status, tested["success"]) == (200, True)
    assert [one[2] for one in (await entries(site))[len(before) :]] == ["token.create"]
