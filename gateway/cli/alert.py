"""`neurogate alert`: what somebody should look at."""

import json
import os
from dataclasses import asdict
from typing import Annotated

import typer

from gateway.cli.gateway_link import ask
from gateway.cli.options import ConfigFile, JsonOutput
from gateway.cli.table import show_table
from gateway.config import load
from gateway.model.reading import rfc3339
from gateway.operations import alerts
from gateway.storage.alerts import AlertRow

app = typer.Typer(no_args_is_help=True, help="See what is wrong, and say who knows of it.")

Id = Annotated[int, typer.Argument(metavar="ID", help="As `neurogate alert list` shows it.")]


@app.command("list")
def list_alerts(
    everything: Annotated[bool, typer.Option("--all", help="Resolved ones as well.")] = False,
    as_json: JsonOutput = False,
    config: ConfigFile = None,
) -> None:
    """Show what is wrong, of every organisation, the newest first."""
    known = ask(load(config, os.environ).settings, alerts.list_alerts, limit=1_000)
    shown = [one for one in known if everything or one.state != "resolved"]
    if as_json:
        print(json.dumps([_as_dict(one) for one in shown]))
        return
    if not shown:
        print("Nothing is wrong." if not known else "Nothing is wrong now; --all shows what was.")
        return
    rows = []
    for one in shown:
        state = one.state if one.acknowledged_by is None else f"{one.state} by {one.acknowledged_by}"
        what = f"{one.message}" + ("" if one.organization_id is None else f" ({one.organization_id})")
        rows.append((str(one.id), rfc3339(one.first_at_ms), one.severity, f"{one.count:,}", state, what))
    show_table(("id", "since", "severity", "times", "state", "what"), rows)


@app.command()
def acknowledge(alert_id: Id, config: ConfigFile = None) -> None:
    """Say that you know of it: it stays until it is well again."""
    one = ask(load(config, os.environ).settings, alerts.acknowledge_alert, alert_id=alert_id)
    print(f"{one.id} is acknowledged by {one.acknowledged_by}.")


@app.command()
def resolve(alert_id: Id, config: ConfigFile = None) -> None:
    """Say that it is done: it opens again when its cause has been away and comes back."""
    one = ask(load(config, os.environ).settings, alerts.resolve_alert, alert_id=alert_id)
    print(f"{one.id} is resolved.")


def _as_dict(one: AlertRow) -> dict[str, object]:
    fields = asdict(one)
    return {
        name.removesuffix("_ms"): rfc3339(value) if name.endswith("_ms") and value is not None else value
        for name, value in fields.items()
    }
