"""`neurogate org`: whose devices, readings and tokens there are on this site."""

import json
import os
from typing import Annotated

import typer

from gateway.cli.gateway_link import ask
from gateway.cli.options import ConfigFile, JsonOutput
from gateway.cli.table import show_table
from gateway.config import load
from gateway.model.reading import rfc3339
from gateway.operations import organizations
from gateway.storage.organizations import OrganizationRow

app = typer.Typer(no_args_is_help=True, help="Keep organisations apart: each sees its own devices and readings only.")

Id = Annotated[str, typer.Argument(metavar="ORGANIZATION", help="Its id, a part of its topics.")]


@app.command()
def add(
    organization_id: Id,
    name: Annotated[str, typer.Option(help="What people call it.")] = "",
    as_json: JsonOutput = False,
    config: ConfigFile = None,
) -> None:
    """Add an organisation."""
    settings = load(config, os.environ).settings
    new = ask(settings, organizations.add_organization, organization_id=organization_id, name=name)
    _show(new, as_json=as_json)


@app.command("list")
def list_organizations(as_json: JsonOutput = False, config: ConfigFile = None) -> None:
    """Show every organisation."""
    known = ask(load(config, os.environ).settings, organizations.list_organizations)
    if as_json:
        print(json.dumps([_as_dict(one) for one in known]))
        return
    rows = [(one.id, one.name, f"{one.devices:,}", rfc3339(one.created_at_ms)) for one in known]
    show_table(("organisation", "name", "devices", "since"), rows)


@app.command()
def show(organization_id: Id, as_json: JsonOutput = False, config: ConfigFile = None) -> None:
    """Show one organisation."""
    settings = load(config, os.environ).settings
    _show(ask(settings, organizations.show_organization, organization_id=organization_id), as_json=as_json)


@app.command()
def rename(
    organization_id: Id,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What people call it.")],
    config: ConfigFile = None,
) -> None:
    """Give an organisation another name; its id stays."""
    settings = load(config, os.environ).settings
    ask(settings, organizations.rename_organization, organization_id=organization_id, name=name)
    print(f"{organization_id} is called {name}.")


@app.command()
def remove(organization_id: Id, config: ConfigFile = None) -> None:
    """Take away an organisation that has no devices and of which nothing is stored, and its tokens."""
    settings = load(config, os.environ).settings
    ask(settings, organizations.remove_organization, organization_id=organization_id)
    print(f"{organization_id} is gone, and its tokens open nothing any more.")


def _show(one: OrganizationRow, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_as_dict(one)))
        return
    print(f"organisation  {one.id}")
    print(f"name          {one.name}")
    print(f"devices       {one.devices:,}")
    print(f"since         {rfc3339(one.created_at_ms)}")


def _as_dict(one: OrganizationRow) -> dict[str, object]:
    return {"id": one.id, "name": one.name, "devices": one.devices, "created_at": rfc3339(one.created_at_ms)}
