"""`neurogate integration`: where readings and notifications go, besides what the configuration file says.

A secret is never among the arguments, where every user of the machine could read it: it is asked for, or comes from
standard input, a file or the environment (`integration_settings.py`).
"""

import asyncio
import json
import os
from dataclasses import asdict
from typing import Annotated, Any

import typer
from pydantic import JsonValue

from cloud_sync.config_schema import IntegrationSchema, schema_of
from cloud_sync.registry import class_of, integration_classes
from gateway.cli.gateway_link import ask, connect
from gateway.cli.integration_settings import settings_from
from gateway.cli.options import ConfigFile, JsonOutput
from gateway.cli.table import show_table
from gateway.cli.which_integration import find_integration
from gateway.config import Settings, load
from gateway.config.schema import as_toml
from gateway.model.errors import BadInput, ConfigError
from gateway.model.finding import Finding
from gateway.model.reading import rfc3339, rfc3339_or_null
from gateway.model.status import IntegrationHealth
from gateway.operations import integration_trials, integrations
from gateway.operations.integrations import IntegrationFields, IntegrationView

app = typer.Typer(no_args_is_help=True, help="Say where readings and notifications go, without a restart.")

_TEST_PATIENCE_S = integration_trials.LONGEST_S + 10

Which = Annotated[str, typer.Argument(metavar="INTEGRATION", help="Its id, or its name.")]
Organization = Annotated[
    str | None, typer.Option(help="Whose it is.", show_default="for a new one gateway.organization_id, else any")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A setting; what is no text as JSON, an empty VALUE takes it away."
    ),
]
Secret = Annotated[
    list[str] | None,
    typer.Option(
        "--secret",
        metavar="KEY[=SOURCE]",
        help="A secret setting: asked for, or from env:NAME, file:PATH or - (standard input).",
    ),
]
Status = Annotated[str | None, typer.Option(help="active or inactive.")]


@app.command("list")
def list_integrations(
    organization: Organization = None, as_json: JsonOutput = False, config: ConfigFile = None
) -> None:
    """Show every integration, those of the configuration file first."""
    settings = load(config, os.environ).settings
    known = ask(settings, integrations.list_integrations, organization_id=organization)
    if as_json:
        print(json.dumps([_as_dict(one) for one in known]))
        return
    rows = [
        (one.name, one.integration_type, one.organization_id or "all: of the file", one.status, one.id, one.error)
        for one in known
    ]
    show_table(("name", "type", "organisation", "status", "id", ""), rows, with_uuids=True)


@app.command()
def types(
    integration_type: Annotated[str, typer.Argument(metavar="[TYPE]", help="Only this one, with its settings.")] = "",
    as_json: JsonOutput = False,
) -> None:
    """Show which kinds of integrations there are, or the settings of one."""
    known = [_schema(integration_type)] if integration_type else _schemas()
    if as_json:
        print(json.dumps([asdict(one) for one in known]))
        return
    if not integration_type:
        show_table(("type", "can", ""), [(one.type, ", ".join(one.capabilities), one.description) for one in known])
        return
    (one,) = known
    rows = []
    for setting in one.settings:
        default = "required" if setting.required else "secret" if setting.secret else as_toml(setting.default)
        rows.append((setting.key, setting.type, default, setting.description))
    print(one.description)
    show_table(("setting", "is", "default", "means"), rows)


@app.command()
def show(
    which: Which, organization: Organization = None, as_json: JsonOutput = False, config: ConfigFile = None
) -> None:
    """Show one integration; of its secrets, which are set."""
    settings = load(config, os.environ).settings
    _show(find_integration(settings, which, organization), as_json=as_json)


@app.command()
def add(
    integration_type: Annotated[str, typer.Argument(metavar="TYPE", help="See: neurogate integration types.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="What people call it.")],
    set_: Set = None,
    secret: Secret = None,
    status: Status = None,
    organization: Organization = None,
    as_json: JsonOutput = False,
    config: ConfigFile = None,
) -> None:
    """Add an integration, which begins at once."""
    settings = load(config, os.environ).settings
    schema = _schema(integration_type)
    new = ask(
        settings,
        integrations.add_integration,
        organization_id=organization or settings.gateway.organization_id,
        integration_type=integration_type,
        name=name,
        settings=settings_from(schema, set_ or (), secret or (), os.environ),
        fields=_fields(status),
    )
    _show(new, as_json=as_json)


@app.command("set")
def change(
    which: Which,
    set_: Set = None,
    secret: Secret = None,
    name: Annotated[str | None, typer.Option(help="What people call it from now on.")] = None,
    status: Status = None,
    organization: Organization = None,
    as_json: JsonOutput = False,
    config: ConfigFile = None,
) -> None:
    """Change an integration: what is named, the rest stays."""
    settings = load(config, os.environ).settings
    one = find_integration(settings, which, organization)
    said: dict[str, JsonValue] = {}
    if set_ or secret:
        said = settings_from(_schema(one.integration_type), set_ or (), secret or (), os.environ)
    changed = ask(
        settings,
        integrations.change_integration,
        integration_id=one.id,
        name=name,
        settings=said or None,
        fields=_fields(status),
    )
    _show(changed, as_json=as_json)


@app.command()
def remove(which: Which, organization: Organization = None, config: ConfigFile = None) -> None:
    """Remove an integration, with its place in the log: what it has not got yet, it will not get."""
    settings = load(config, os.environ).settings
    one = find_integration(settings, which, organization)
    ask(settings, integrations.remove_integration, integration_id=one.id)
    print(f"{one.name} is gone.")


@app.command("test")
def try_integration(
    which: Which, organization: Organization = None, as_json: JsonOutput = False, config: ConfigFile = None
) -> None:
    """Connect, authenticate and say what is wrong, without sending anything that counts; exit 1 when it is broken."""
    settings = load(config, os.environ).settings
    one = find_integration(settings, which, organization)
    found = asyncio.run(_test(settings, one.id))
    if as_json:
        print(json.dumps([asdict(finding) for finding in found]))
    else:
        for finding in found:
            print(f"{finding.level:<8} {finding.words}")
            if finding.hint:
                print(f"{'':<8} {finding.hint}")
    if any(finding.level == "broken" for finding in found):
        raise typer.Exit(1)


async def _test(settings: Settings, integration_id: str) -> list[Finding]:
    async with connect(settings, patience_s=_TEST_PATIENCE_S) as gateway:
        return await gateway.call(integrations.try_integration, integration_id=integration_id)


def _schemas() -> list[IntegrationSchema]:
    return [schema_of(one) for one in integration_classes().values()]


def _schema(integration_type: str) -> IntegrationSchema:
    """Raises BadInput for one that there is not."""
    try:
        return schema_of(class_of(integration_type, "TYPE"))
    except ConfigError as error:
        raise BadInput("unknown_type", error.message, hint=error.hint) from None


def _fields(status: str | None) -> IntegrationFields:
    if status is None or status in ("active", "inactive"):
        return IntegrationFields.model_validate({"status": status})
    raise BadInput("invalid_status", f"There is no status {status[:50]}.", hint="Use active or inactive.")


def _show(one: IntegrationView, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_as_dict(one)))
        return
    lines = [
        ("integration", one.id),
        ("name", one.name),
        ("type", one.integration_type),
        ("organisation", one.organization_id or "all: it is declared in the configuration file"),
        ("status", one.status),
        *([("error", one.error)] if one.error else ()),
        *((key, as_toml(value)) for key, value in one.settings.items()),
        *((key, "set, and not shown") for key in one.secret_names if key not in one.settings),
        *(_health(one.health) if one.health is not None else ()),
    ]
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{width}}  {value}")


def _health(one: IntegrationHealth) -> list[tuple[str, str]]:
    if one.last_success_ms is None and not one.errors:
        return [("up", "not tried yet")]
    return [
        ("up", "yes" if one.up else f"no: {one.failures:,} failures, the last for {one.error_kind}"),
        ("last success", "none yet" if one.last_success_ms is None else rfc3339(one.last_success_ms)),
        ("uptime", f"{one.uptime:.1%}"),
    ]


def _as_dict(one: IntegrationView) -> dict[str, Any]:
    shown = asdict(one)
    _name_times(shown, "last_sync", "created", "updated")
    if shown["health"] is not None:
        _name_times(shown["health"], "last_success", "last_error")
    return shown


def _name_times(shown: dict[str, Any], *names: str) -> None:
    for name in names:
        key = f"{name}_at_ms" if f"{name}_at_ms" in shown else f"{name}_ms"
        unix_ms = shown.pop(key)
        shown[f"{name}_at"] = rfc3339_or_null(unix_ms)
