"""`neurogate notify`: try who is told, see how it reads, and what became of it."""

import asyncio
import json
import os
import sys
from contextlib import aclosing
from typing import Annotated

import typer

from cloud_sync.contract import Notifies
from cloud_sync.egress import Egress
from cloud_sync.notifier import EXAMPLE, example
from cloud_sync.registry import check_config, integration_class
from gateway.cli.gateway_link import ask, connect
from gateway.cli.options import ConfigFile, JsonOutput
from gateway.cli.table import one_line, show_table
from gateway.cli.which_integration import find_integration
from gateway.clock import SystemClock
from gateway.config import Settings, load
from gateway.model.errors import BadInput
from gateway.model.priorities import PRIORITIES, Priority
from gateway.model.reading import rfc3339
from gateway.operations.integrations import IntegrationView
from gateway.operations.logged_notification import logged
from gateway.operations.notifications import (
    follow_notification,
    page_notifications,
    preview_notification,
    resend_failed_notifications,
    resend_notification,
    send_notification,
)
from gateway.storage.notification_rows import NewNotification, NotificationRow, Status

app = typer.Typer(no_args_is_help=True, help="Tell people: try it, preview it, see what became of it.")

STATUSES: tuple[Status, ...] = ("pending", "sent", "failed", "retrying")
_TEST_S = 60.0

Name = Annotated[str, typer.Argument(metavar="NAME", help="The integration: its name, or its id.")]
Organization = Annotated[str | None, typer.Option(help="Whose it is.", show_default="gateway.organization_id")]


@app.command("test")
def try_it(
    name: Name,
    message: Annotated[
        str, typer.Option(help="What is told.")
    ] = "This is a test of neurogate: it can tell you something.",
    organization: Organization = None,
    config: ConfigFile = None,
) -> None:
    """Send a message by an integration, and say what became of it."""
    settings = load(config, os.environ).settings
    organization_id = organization or settings.gateway.organization_id
    one = find_integration(settings, name, organization_id)
    raise typer.Exit(asyncio.run(_test(settings, organization_id, one, message)))


async def _test(settings: Settings, organization_id: str, one: IntegrationView, message: str) -> int:
    async with connect(settings) as gateway:
        sent = await gateway.call(
            send_notification,
            organization_id=organization_id,
            integration_id=one.id,
            kind="test",
            subject="A test",
            message=message,
        )
        rows = gateway.stream(follow_notification, organization_id=organization_id, notification_id=sent.id)
        row: NotificationRow | None = None
        try:
            async with aclosing(rows), asyncio.timeout(_TEST_S):
                async for row in rows:
                    if row.status != "pending":
                        break
        except TimeoutError:
            pass
    if row is not None and row.status == "sent":
        print(f"{one.name} has taken it.")
        return 0
    why = row.error_message if row is not None and row.error_message else "it has not answered yet"
    print(f"It was not sent: {why}", file=sys.stderr)
    if row is not None and row.status != "failed":
        print(f"It is tried again: neurogate notify log shows {sent.id}.", file=sys.stderr)
    return 1


@app.command()
def preview(
    name: Name,
    kind: Annotated[str, typer.Option(help="What kind of thing it tells, such as alert.raised or digest.")] = "message",
    subject: Annotated[str, typer.Option(help="Its subject.")] = "",
    message: Annotated[str, typer.Option(help="What it tells.", show_default="an example")] = "",
    priority: Annotated[str, typer.Option(help=f"One of: {', '.join(PRIORITIES)}.")] = "medium",
    organization: Organization = None,
    config: ConfigFile = None,
) -> None:
    """Show how a notification would read, by the templates of an integration. Nothing is sent."""
    settings = load(config, os.environ).settings
    organization_id = organization or settings.gateway.organization_id
    urgency = _priority(priority)
    new = NewNotification(organization_id, name, "", message or EXAMPLE, urgency, kind, subject)
    new.check()
    shown = _from_file(settings, new)
    if shown is None:
        shown = ask(
            settings,
            preview_notification,
            organization_id=organization_id,
            integration_id=find_integration(settings, name, organization_id).id,
            kind=kind,
            subject=subject,
            message=new.message,
            priority=urgency,
        )
    print(shown)


def _from_file(settings: Settings, new: NewNotification) -> str | None:
    """Return what one of the file would send, as the file is now; None for what the gateway alone knows."""
    for table in settings.integrations:
        if table.name == new.integration_id:
            known, config = integration_class(table), check_config(table)
            if not issubclass(known, Notifies):
                raise BadInput(
                    "not_notifying", f"{table.name} is of the type {table.type}, which sends no notifications."
                )
            if isinstance(config, known.Config):
                clock = SystemClock()
                one = known(config, clock, Egress(settings.egress))
                return one.preview(example(new, settings.gateway.id, clock.now_ms()))
    return None


@app.command("log")
def show_log(
    status: Annotated[str | None, typer.Option(help=f"Only those: {', '.join(STATUSES)}.", show_default=False)] = None,
    integration: Annotated[
        str | None, typer.Option(help="Only what goes, or went, by this one: its id.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many, the newest.")] = 50,
    organization: Organization = None,
    as_json: JsonOutput = False,
    config: ConfigFile = None,
) -> None:
    """Show notifications, the newest first, and what became of them."""
    settings = load(config, os.environ).settings
    chosen = next((one for one in STATUSES if one == status), None)
    if status is not None and chosen is None:
        raise BadInput("invalid_status", f"There is no status {status}.", hint=f"Use one of: {', '.join(STATUSES)}.")
    rows = ask(
        settings,
        page_notifications,
        organization_id=organization or settings.gateway.organization_id,
        status=chosen,
        integration_id=integration,
        limit=limit,
    )
    if as_json:
        print(json.dumps([logged(row) for row in rows]))
        return
    if not rows:
        print("There are no notifications.")
        return
    lines = []
    for row in rows:
        what = one_line(row.subject or row.message) + (f" ({one_line(row.error_message)})" if row.error_message else "")
        lines.append((row.id, rfc3339(row.created_at_ms), row.integration_id, row.priority, row.status, what))
    show_table(("id", "at", "by", "priority", "status", "what"), lines, with_uuids=True)


@app.command()
def resend(
    notification: Annotated[str | None, typer.Argument(metavar="[ID]", help="One that has failed.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that have failed.")] = False,
    organization: Organization = None,
    config: ConfigFile = None,
) -> None:
    """Send again what has failed, under the id that it had."""
    if (notification is None) != everything:
        raise typer.BadParameter("Name one, or say --all.")
    settings = load(config, os.environ).settings
    organization_id = organization or settings.gateway.organization_id
    if notification is not None:
        ask(settings, resend_notification, organization_id=organization_id, notification_id=notification)
        print("It goes out again, while a gateway runs.")
        return
    count = ask(settings, resend_failed_notifications, organization_id=organization_id)
    print(f"{count} go out again, while a gateway runs." if count else "None has failed.")


def _priority(text: str) -> Priority:
    for one in PRIORITIES:
        if one == text:
            return one
    raise BadInput("invalid_priority", f"There is no priority {text}.", hint=f"Use one of: {', '.join(PRIORITIES)}.")
