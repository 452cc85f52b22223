"""`neurogate device`: register boards, look at them, change and take away their access."""

import json
import os
from typing import Annotated, TypedDict

import typer

from gateway.cli import command
from gateway.cli.gateway_link import ask
from gateway.cli.options import ConfigFile, JsonOutput, OverlapHours, overlap_ms
from gateway.cli.table import show_table
from gateway.config import Settings, load
from gateway.model.errors import BadInput
from gateway.model.reading import rfc3339, rfc3339_or_null
from gateway.operations import devices
from gateway.storage.state import DeviceCredential, DeviceRow

app = typer.Typer(no_args_is_help=True, help="Register boards, look at them, change and take away their access.")
app.command("command")(command.send)
app.command("commands")(command.list_commands)

DeviceId = Annotated[str, typer.Argument(metavar="DEVICE")]
Organization = Annotated[str | None, typer.Option(help="Its organisation.", show_default="gateway.organization_id")]
Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", metavar="KEY=VALUE", help="Goes out with its readings; may be repeated."),
]
HardwareIds = Annotated[
    list[str] | None,
    typer.Option("--hardware-id", metavar="ID", help="What its messages call it instead; may be repeated."),
]
SerialNumber = Annotated[str, typer.Option("--serial-number", help="The same, where no hardware id fits.")]


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def flash(context: typer.Context) -> None:
    """Put the program on an ESP32, register it, and wait for its first reading; see --help."""
    from gateway.cli import device_flash  # noqa: PLC0415 - what speaks to a board takes its time, and only this needs it

    device_flash.flash(context.args)


@app.command()
def logs(
    port: Annotated[str, typer.Option(help="Serial port of the board.", show_default="the only one")] = "auto",
) -> None:
    """Show what a board says on its serial port, until Ctrl-C."""
    from gateway.provisioning.console import show_console  # noqa: PLC0415 - the same

    show_console(port)


@app.command()
def add(
    device_id: DeviceId,
    organization: Organization = None,
    metadata: Metadata = None,
    hardware_id: HardwareIds = None,
    serial_number: SerialNumber = "",
    as_json: JsonOutput = False,
    config: ConfigFile = None,
) -> None:
    """Register a board and show its username and password, this once."""
    settings = load(config, os.environ).settings
    pairs = dict(_pair(text) for text in metadata or [])
    credential = ask(
        settings,
        devices.add_device,
        **_key(settings, organization, device_id),
        metadata=dict(pairs),
        hardware_ids=tuple(hardware_id or ()),
        serial_number=serial_number,
    )
    _show_credential(credential, as_json=as_json)


@app.command("list")
def list_devices(as_json: JsonOutput = False, config: ConfigFile = None) -> None:
    """Show every board."""
    known = ask(load(config, os.environ).settings, devices.list_devices)
    if as_json:
        print(json.dumps([_as_dict(device) for device in known]))
        return
    rows = []
    for device in known:
        pairs = ", ".join(f"{name}={value}" for name, value in device.metadata.items())
        registered = rfc3339(device.created_at_ms)
        rows.append((device.organization_id, device.device_id, device.status, pairs, registered))
    show_table(("organisation", "device", "status", "metadata", "registered"), rows)


@app.command()
def show(
    device_id: DeviceId, organization: Organization = None, as_json: JsonOutput = False, config: ConfigFile = None
) -> None:
    """Show all that is known of one board."""
    settings = load(config, os.environ).settings
    details = ask(settings, devices.show_device, **_key(settings, organization, device_id))
    activity = details.activity
    last = rfc3339_or_null(details.last_reading_ms)
    if as_json:
        fields = _as_dict(details.device) | {
            "topics": details.topics,
            "connected": None if activity is None else activity.connections > 0,
            "last_reading_at": last,
            "readings_since_start": None if activity is None else activity.readings,
        }
        print(json.dumps(fields))
        return
    lines = [
        ("device", details.device.device_id),
        ("organisation", details.device.organization_id),
        ("status", details.device.status),
        ("registered", rfc3339(details.device.created_at_ms)),
        *(("metadata", f"{name}={value}") for name, value in details.device.metadata.items()),
        *(("hardware id", one) for one in details.device.hardware_ids),
        *([("serial", details.device.serial_number)] if details.device.serial_number else []),
        *(("topic", topic) for topic in details.topics),
        ("last reading", last or "none is stored"),
    ]
    if activity is None:
        lines.append(("connected", "no: no gateway is running"))
    else:
        lines.append(("connected", "yes" if activity.connections else "no"))
        lines.append(("since start", f"{activity.readings:,} readings"))
    for name, value in lines:
        print(f"{name:<12}  {value}")


@app.command()
def metadata(
    device_id: DeviceId,
    pairs: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="What to set.")] = None,
    remove: Annotated[list[str] | None, typer.Option(metavar="KEY", help="What to take away; may be repeated.")] = None,
    organization: Organization = None,
    as_json: JsonOutput = False,
    config: ConfigFile = None,
) -> None:
    """Change what goes out with a board's readings from now on; what is not named stays. Shows all of it."""
    settings = load(config, os.environ).settings
    changes = {**dict.fromkeys(remove or []), **dict(_pair(text) for text in pairs or [])}
    if not changes:
        raise typer.BadParameter("Name what to set, as room=kitchen, or what to --remove.")
    device = ask(settings, devices.set_metadata, **_key(settings, organization, device_id), metadata=dict(changes))
    if as_json:
        print(json.dumps(_as_dict(device)))
        return
    for name, value in device.metadata.items():
        print(f"{name}={value}")


@app.command()
def rotate(
    device_id: DeviceId,
    organization: Organization = None,
    overlap_h: OverlapHours = 24.0,
    as_json: JsonOutput = False,
    config: ConfigFile = None,
) -> None:
    """Give a board a new password and show it, this once. The old one stays good for a while, then its session ends."""
    settings = load(config, os.environ).settings
    key = _key(settings, organization, device_id)
    credential = ask(settings, devices.rotate_device, **key, overlap_ms=overlap_ms(overlap_h))
    _show_credential(credential, as_json=as_json)


@app.command()
def revoke(device_id: DeviceId, organization: Organization = None, config: ConfigFile = None) -> None:
    """Take a board's access away and end its session; its readings stay."""
    settings = load(config, os.environ).settings
    ask(settings, devices.revoke_device, **_key(settings, organization, device_id))
    print(f"{device_id} has no access any more.")


@app.command()
def transfer(
    device_id: DeviceId,
    to: Annotated[str, typer.Option(metavar="ORGANIZATION", help="Which one it moves to.")],
    organization: Organization = None,
    as_json: JsonOutput = False,
    config: ConfigFile = None,
) -> None:
    """Move a board to another organisation and show its new username and password, this once; its readings stay."""
    settings = load(config, os.environ).settings
    _, credential = ask(settings, devices.transfer_device, **_key(settings, organization, device_id), to=to)
    if credential is not None:
        _show_credential(credential, as_json=as_json)
    elif as_json:
        print(json.dumps({"device_id": device_id}))
    else:
        print(f"{device_id} is in {to} now, without access.")


class _Key(TypedDict):
    organization_id: str
    device_id: str


def _key(settings: Settings, organization: str | None, device_id: str) -> _Key:
    return _Key(organization_id=organization or settings.gateway.organization_id, device_id=device_id)


def _show_credential(credential: DeviceCredential, *, as_json: bool) -> None:
    if as_json:
        fields = {name: getattr(credential, name) for name in ("device_id", "username", "password", "topics")}
        print(json.dumps(fields))
        return
    print(f"device    {credential.device_id}")
    print(f"username  {credential.username}")
    print(f"password  {credential.password}   (kept nowhere else: note it now)")
    print(f"topic     {credential.topics[0]}")


def _pair(text: str) -> tuple[str, str]:
    if not text.isprintable():  # a lone byte from the shell is half a surrogate, and no JSON can carry it
        raise BadInput("invalid_metadata", "The metadata is not text.", hint="Use UTF-8 without control characters.")
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise BadInput("invalid_metadata", f"{text!r} is not KEY=VALUE.", hint="For example: --metadata room=kitchen")
    return name, value


def _as_dict(device: DeviceRow) -> dict[str, object]:
    return {
        "organization_id": device.organization_id,
        "device_id": device.device_id,
        "status": device.status,
        "metadata": device.metadata,
        "hardware_ids": list(device.hardware_ids),
        "serial_number": device.serial_number,
        "created_at": rfc3339(device.created_at_ms),
    }
