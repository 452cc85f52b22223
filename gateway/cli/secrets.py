"""`neurogate secrets`: the vault. What is in it is never shown."""

import json
import os
from typing import Annotated

import typer

from gateway.cli.gateway_link import ask
from gateway.cli.options import ConfigFile, JsonOutput
from gateway.cli.secret_input import ask_for, from_stdin, is_asked
from gateway.cli.table import show_table
from gateway.config import Settings, load
from gateway.config.substitution import vault_names
from gateway.model.reading import rfc3339
from gateway.operations import secrets

app = typer.Typer(no_args_is_help=True, help="Passwords and keys of others, encrypted: ${vault:NAME} in integrations.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="What the configuration calls it: ${vault:NAME}.")]


@app.command("set", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def set_secret(context: typer.Context, name: Name, config: ConfigFile = None) -> None:
    """Put a secret into the vault; its value is asked for, or read from standard input."""
    if context.args:  # perhaps the value: click's own words would repeat it
        raise typer.BadParameter("only NAME is taken here. The value is asked for, or read from standard input.")
    settings = load(config, os.environ).settings
    ask(settings, secrets.set_secret, name=name, value=ask_for("Value") if is_asked() else from_stdin())
    print(f"{name} is in the vault. {_users_have_to_know(settings, name)}")


@app.command("list")
def list_secrets(as_json: JsonOutput = False, config: ConfigFile = None) -> None:
    """Show every secret, but not what it is; and those that the configuration asks for in vain."""
    settings = load(config, os.environ).settings
    known = ask(settings, secrets.list_secrets)
    users = _users(settings)
    missing = sorted(users.keys() - {one.name for one in known})
    if as_json:
        rows = [
            {
                "name": one.name,
                "created_at": rfc3339(one.created_at_ms),
                "changed_at": rfc3339(one.changed_at_ms),
                "unreadable": one.unreadable,
                "used_by": users.get(one.name, []),
            }
            for one in known
        ]
        print(json.dumps({"secrets": rows, "missing": missing}))
        return
    lines = [
        (one.name, rfc3339(one.changed_at_ms), ", ".join(users.get(one.name, [])), one.unreadable) for one in known
    ]
    lines += [(name, "", ", ".join(users[name]), f"not set: neurogate secrets set {name}") for name in missing]
    show_table(("name", "changed", "used by", ""), lines)


@app.command()
def remove(name: Name, config: ConfigFile = None) -> None:
    """Take a secret out of the vault."""
    settings = load(config, os.environ).settings
    ask(settings, secrets.remove_secret, name=name)
    print(f"{name} is gone. {_users_have_to_know(settings, name)}")


@app.command()
def rotate(config: ConfigFile = None) -> None:
    """Encrypt the whole vault with a new key; the old one is removed. The secrets themselves stay what they are."""
    done = ask(load(config, os.environ).settings, secrets.rotate_vault)
    print(f"Encrypted with a new key: {done.values}. Backups made before hold the old one.")
    if done.left:
        print(f"Not readable, and left as they are: {done.left}. See: neurogate secrets list")


def _users(settings: Settings) -> dict[str, list[str]]:
    """Return which integrations name a secret."""
    users: dict[str, list[str]] = {}
    for table in settings.integrations:
        for name in dict.fromkeys(vault_names(table.model_extra)):
            users.setdefault(name, []).append(table.name)
    return users


def _users_have_to_know(settings: Settings, name: str) -> str:
    users = _users(settings).get(name)
    if not users:
        return f"No integration names it yet: ${{vault:{name}}}."
    return f"A gateway that runs notices it when it is restarted ({', '.join(users)})."
