"""Commands to devices: sent, awaited, listed."""

from collections.abc import AsyncGenerator

from pydantic import JsonValue

from gateway.model.command import Command
from gateway.model.errors import Conflict, NotFound
from gateway.operations.site import Live, Site
from gateway.storage.commands import Commands
from gateway.storage.device_changes import get_device


async def send_command(
    site: Site,
    *,
    organization_id: str,
    device_id: str,
    method: str,
    params: dict[str, JsonValue],
    timeout_ms: int,
    command_id: str | None = None,
) -> Command:
    """Return a command when it is on disk: it is told to its device as soon as that is there, until its deadline.

    With the id of one that was sent before, that one. Raises NotFound, BadInput, Conflict and StoreFailed.
    """
    live = _live(site)
    device = await get_device(await site.state(), organization_id, device_id)
    if device.status == "revoked":
        raise Conflict(
            f"{device_id} has no access any more: nothing can be told to it.",
            hint="A new credential gives it some: POST devices/{id}/credentials.",
        )
    return await live.commands.send(
        organization_id,
        device_id,
        method,
        params,
        timeout_ms=timeout_ms,
        command_id=command_id,
        actor=site.actor,
    )


async def await_command(site: Site, *, command: Command, timeout_s: float) -> Command:
    """Return a command as it is when nothing more becomes of it, or the time is over."""
    return await _live(site).commands.finished(command, timeout_s)


async def follow_command(
    site: Site, *, organization_id: str, device_id: str, command_id: str
) -> AsyncGenerator[Command, None]:
    """Yield a command as it is, and whenever that changes, until nothing more becomes of it. Raises NotFound."""
    live = _live(site)
    command = await show_command(site, organization_id=organization_id, device_id=device_id, command_id=command_id)
    yield command
    while command.is_pending:
        command = await live.commands.changed(command)
        yield command


async def show_command(site: Site, *, organization_id: str, device_id: str, command_id: str) -> Command:
    """Return one command. Raises NotFound."""
    return await Commands(await site.state()).get(organization_id, device_id, command_id)


async def list_commands(
    site: Site,
    *,
    organization_id: str,
    device_id: str,
    state: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[Command]:
    """Return a device's newest commands below a number. Raises NotFound when there is no such device."""
    at_rest = await site.state()
    await get_device(at_rest, organization_id, device_id)
    return await Commands(at_rest).page(organization_id, device_id, state=state, before=before, limit=limit)


def _live(site: Site) -> Live:
    if site.live is None:
        raise NotFound("No gateway is running.", hint="Start it: neurogate run")
    return site.live
