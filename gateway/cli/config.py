"""`neurogate config`: look at the configuration as the gateway sees it."""

import json
import os
from typing import Annotated

import typer

from gateway.cli.options import ConfigFile
from gateway.config import load
from gateway.config.schema import as_toml
from gateway.shown_config import shown_settings

app = typer.Typer(help="Look at the configuration.", no_args_is_help=True)


@app.callback()
def _config() -> None:
    """Make `config` a group, even of one command."""


@app.command()
def show(
    config: ConfigFile = None,
    *,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value came from.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show every setting with its value; secrets stay hidden."""
    rows = shown_settings(load(config, os.environ))
    if as_json:
        values = {one.key: {"value": one.value, "origin": one.origin} if origin else one.value for one in rows}
        print(json.dumps(values, indent=2))
        return
    for one in rows:
        text = "(not set)" if one.value is None else as_toml(one.value)
        print(f"{one.key} = {text}  # {one.origin}" if origin else f"{one.key} = {text}")
