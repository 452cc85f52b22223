"""`neurogate buffer`: what the log holds, and how far each destination is."""

import json
import os
from dataclasses import asdict

import typer

from gateway.cli import dead_letters, erase, export, quarantine
from gateway.cli.gateway_link import ask
from gateway.cli.options import ConfigFile, JsonOutput
from gateway.cli.table import show_table
from gateway.config import load
from gateway.model.reading import rfc3339
from gateway.model.status import Loss
from gateway.operations.buffer import Place, buffer_status

app = typer.Typer(no_args_is_help=True, help="What the log holds, and how far each destination is.")

app.command()(quarantine.quarantine)
app.command()(dead_letters.dead_letters)
app.command()(dead_letters.replay)
app.command()(dead_letters.drop)
app.command()(export.export)
app.command()(erase.erase)


@app.command()
def status(as_json: JsonOutput = False, config: ConfigFile = None) -> None:
    """Show the log's size, and for each destination what it still has to get."""
    settings = load(config, os.environ).settings
    report = ask(settings, buffer_status)
    if as_json:
        print(json.dumps(asdict(report)))
        return
    log = report.buffer
    print(f"{log.readings:,} readings (rows {log.oldest_row} to {log.newest_row}), {log.bytes / 1e6:,.1f} MB on disk")
    print(f"{log.quarantined:,} in quarantine")
    columns = ("state", "delivery", "position", "undelivered", "oldest", "dead letters", "lost")
    rows = []
    for one in report.destinations:
        age = "" if one.oldest_seconds is None else f"{one.oldest_seconds} s"
        dead = ", ".join(filter(None, [f"{one.dead_letters:,}", _lost(one.dead_letters_lost, " lost")]))
        figures = (str(one.position), f"{one.undelivered:,}", age, dead, _lost(one.lost))
        rows.append((one.title, one.state or "", _delivery(one), *figures))
    if rows:
        show_table(("destination", *columns), rows)


def _delivery(place: Place) -> str:
    after = "" if place.next_attempt_s is None else f", next attempt in {place.next_attempt_s:.0f} s"
    return f"{place.delivery or ''}{after}"


def _lost(loss: Loss | None, word: str = "") -> str:
    return "" if loss is None else f"{loss.readings:,}{word} since {rfc3339(loss.since_ms)}"
