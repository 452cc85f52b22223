"""`neurogate credential`: who may log in besides boards, and how everybody's credentials are used."""

import json
import os
from typing import Annotated

import typer

from gateway.cli.gateway_link import ask
from gateway.cli.options import ConfigFile, JsonOutput, OverlapHours, overlap_ms
from gateway.cli.table import show_table
from gateway.config import load
from gateway.model.errors import BadInput
from gateway.model.reading import rfc3339, rfc3339_or_null
from gateway.operations import credentials
from gateway.operations.credentials import CredentialDetails
from gateway.storage.credentials import NewPassword

app = typer.Typer(no_args_is_help=True, help="Let hubs and the owner's tools in; see how credentials are used.")

Username = Annotated[str, typer.Argument(metavar="USERNAME")]
_HOUR_MS = 3_600_000


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its username, for an organisation NAME@ORGANISATION.")],
    organization: Annotated[
        str | None, typer.Option(help="Whose devices it speaks for.", show_default="gateway.organization_id")
    ] = None,
    site: Annotated[
        bool, typer.Option("--site", help="For the owner's tools: hears all organisations, sends commands.")
    ] = False,
    home_assistant: Annotated[
        bool, typer.Option("--home-assistant", help="For Home Assistant: hears what it is told, speaks for no device.")
    ] = False,
    as_json: JsonOutput = False,
    config: ConfigFile = None,
) -> None:
    """Let a hub or a bridge speak for every device of an organisation; show its password, this once."""
    if site and organization is not None:
        raise BadInput(
            "contradiction", "A credential of the site has no organisation.", hint="Use --site or --organization."
        )
    settings = load(config, os.environ).settings
    organization_id = None if site else organization or settings.gateway.organization_id
    new = ask(
        settings,
        credentials.add_credential,
        name=name,
        organization_id=organization_id,
        is_home_assistant=home_assistant,
    )
    _show_password(new, as_json=as_json)


@app.command("list")
def list_credentials(as_json: JsonOutput = False, config: ConfigFile = None) -> None:
    """Show every credential, the boards' too, and how it is used."""
    known = ask(load(config, os.environ).settings, credentials.list_credentials)
    if as_json:
        print(json.dumps([_as_dict(one) for one in known]))
        return
    rows = [
        (
            one.username,
            one.organization_id or "the site",
            one.device_id or "all",
            rfc3339_or_null(one.last_connected_at_ms) or "never",
            f"{one.connections:,}",
            f"{one.refused_logins:,}",
            f"{one.messages_in:,}",
        )
        for one in known
    ]
    show_table(("username", "organisation", "device", "last login", "logins", "refused", "messages"), rows)


@app.command()
def show(username: Username, as_json: JsonOutput = False, config: ConfigFile = None) -> None:
    """Show one credential: its rights, and how it is used."""
    one = ask(load(config, os.environ).settings, credentials.show_credential, username=username)
    if as_json:
        print(json.dumps(_as_dict(one)))
        return
    lines = [
        ("username", one.username),
        ("organisation", one.organization_id or "the site: all of them"),
        ("device", one.device_id or "all"),
        ("created", rfc3339(one.created_at_ms)),
        *(("publishes", right) for right in (*one.rights.publish, *one.rights.unheard)),
        *(("subscribes", right) for right in one.rights.subscribe),
        ("last login", rfc3339_or_null(one.last_connected_at_ms) or "never"),
        ("logins", f"{one.connections:,}"),
        ("refused", f"{one.refused_logins:,}"),
        ("messages", f"{one.messages_in:,}"),
    ]
    if one.old_password_left_ms is not None:
        lines.append(("old password", f"good for another {one.old_password_left_ms / _HOUR_MS:.1f} h"))
    for name, value in lines:
        print(f"{name:<12}  {value}")


@app.command()
def rotate(
    username: Username, overlap_h: OverlapHours = 24.0, as_json: JsonOutput = False, config: ConfigFile = None
) -> None:
    """Make a new password and show it, this once. The old one stays good for a while, then its sessions end."""
    settings = load(config, os.environ).settings
    new = ask(settings, credentials.rotate_credential, username=username, overlap_ms=overlap_ms(overlap_h))
    _show_password(new, as_json=as_json)


@app.command()
def revoke(username: Username, config: ConfigFile = None) -> None:
    """Take a credential away with all its passwords, and end its sessions."""
    ask(load(config, os.environ).settings, credentials.revoke_credential, username=username)
    print(f"{username} has no access any more.")


def _show_password(new: NewPassword, *, as_json: bool) -> None:
    if as_json:
        fields = {name: getattr(new, name) for name in ("username", "organization_id", "password")}
        print(json.dumps(fields))
        return
    print(f"username  {new.username}")
    print(f"password  {new.password}   (kept nowhere else: note it now)")


def _as_dict(one: CredentialDetails) -> dict[str, object]:
    left_ms = one.old_password_left_ms
    return {
        "username": one.username,
        "organization_id": one.organization_id,
        "device_id": one.device_id,
        "publish": list(one.rights.publish),
        "subscribe": list(one.rights.subscribe),
        "created_at": rfc3339(one.created_at_ms),
        "last_connected_at": rfc3339_or_null(one.last_connected_at_ms),
        "connections": one.connections,
        "refused_logins": one.refused_logins,
        "messages_in": one.messages_in,
        "old_password_left_s": None if left_ms is None else left_ms / 1000,
    }
