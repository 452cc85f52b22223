"""`neurogate token`: who may ask the HTTP API."""

import json
import os
from typing import Annotated

import typer

from gateway.cli.gateway_link import ask
from gateway.cli.options import ConfigFile, JsonOutput
from gateway.cli.table import show_table
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
    site: Annotated[
        bool, typer.Option("--site", help="For every organisation; as owner or admin it manages them.")
    ] = False,
    as_json: JsonOutput = False,
    config: ConfigFile = None,
) -> None:
    """Make a token and show it, this once."""
    if role not in ROLES:
        raise BadInput("invalid_role", f"There is no role {role}.", hint=f"Use one of: {', '.join(ROLES)}.")
    _refuse_both(organization, site=site)
    settings = load(config, os.environ).settings
    organization_id = None if site else organization or settings.gateway.organization_id
    new = ask(settings, tokens.create_token, name=name, organization_id=organization_id, role=role)
    if as_json:
        print(json.dumps({field: getattr(new, field) for field in ("id", "name", "organization_id", "role", "token")}))
        return
    print(f"name   {new.name}, {new.role} of {new.organization_id or 'the site'}")
    print(f"token  {new.token}   (kept nowhere else: note it now)")


@app.command("list")
def list_tokens(as_json: JsonOutput = False, config: ConfigFile = None) -> None:
    """Show every token, but not what it is."""
    known = ask(load(config, os.environ).settings, tokens.list_tokens)
    if as_json:
        rows = [
            {
                "id": one.id,
                "name": one.name,
                "organization_id": one.organization_id,
                "role": one.role,
                "created_at": rfc3339(one.created_at_ms),
            }
            for one in known
        ]
        print(json.dumps(rows))
        return
    lines = [(one.name, one.organization_id or "the site", one.role, rfc3339(one.created_at_ms)) for one in known]
    show_table(("name", "organisation", "role", "created"), lines)


@app.command()
def revoke(
    name: Name,
    organization: Annotated[
        str | None, typer.Option(help="Whose it is, if several have one of that name.", show_default=False)
    ] = None,
    site: Annotated[bool, typer.Option("--site", help="The one of the site.")] = False,
    config: ConfigFile = None,
) -> None:
    """Take a token away: it opens nothing any more."""
    _refuse_both(organization, site=site)
    settings = load(config, os.environ).settings
    ask(settings, tokens.revoke_token, name=name, organization_id=organization, of_site=site)
    print(f"{name} opens nothing any more.")


def _refuse_both(organization: str | None, *, site: bool) -> None:
    if site and organization is not None:
        raise BadInput(
            "contradiction", "A token of the site has no organisation.", hint="Use --site or --organization."
        )
