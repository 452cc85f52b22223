"""`neurogate token`: who may ask the HTTP API."""

import json
import os
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gateway.cli.gateway_link import ask
from gateway.cli.options import ConfigFile, JsonOutput
from gateway.config import load
from gateway.model.errors import BadInput
from gateway.model.reading import rfc3339
from gateway.model.roles import ROLES
from gateway.operations import tokens

app = typer.Typer(no_args_is_help=True, help="Let people and programs ask the HTTP API.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose it is, or what for.")]


@app.command()
def create(
    name: Name,
    role: Annotated[str, typer.Option(help=f"One of: {', '.join(ROLES)}.")] = "member",
    organization: Annotated[
        str | None, typer.Option(help="Whose devices it is for.", show_default="gateway.organization_id")
    ] = None,
    as_json: JsonOutput = False,
    config: ConfigFile = None,
) -> None:
    """Make a token and show it, this once."""
    if role not in ROLES:
        raise BadInput("invalid_role", f"There is no role {role}.", hint=f"Use one of: {', '.join(ROLES)}.")
    settings = load(config, os.environ).settings
    organization_id = organization or settings.gateway.organization_id
    new = ask(settings, tokens.create_token, name=name, organization_id=organization_id, role=role)
    if as_json:
        print(json.dumps({field: getattr(new, field) for field in ("name", "organization_id", "role", "token")}))
        return
    print(f"name   {new.name}, {new.role} of {new.organization_id}")
    print(f"token  {new.token}   (kept nowhere else: note it now)")


@app.command("list")
def list_tokens(as_json: JsonOutput = False, config: ConfigFile = None) -> None:
    """Show every token, but not what it is."""
    known = ask(load(config, os.environ).settings, tokens.list_tokens)
    if as_json:
        rows = [
            {
                "name": one.name,
                "organization_id": one.organization_id,
                "role": one.role,
                "created_at": rfc3339(one.created_at_ms),
            }
            for one in known
        ]
        print(json.dumps(rows))
        return
    table = Table("name", "organisation", "role", "created", box=None)
    for one in known:
        table.add_row(one.name, one.organization_id, one.role, rfc3339(one.created_at_ms))
    Console().print(table)


@app.command()
def revoke(name: Name, config: ConfigFile = None) -> None:
    """Take a token away: it opens nothing any more."""
    ask(load(config, os.environ).settings, tokens.revoke_token, name=name)
    print(f"{name} opens nothing any more.")
