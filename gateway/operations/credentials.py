"""Credentials of any kind: who may log in, where each may publish and subscribe, and how it is used.

A change holds, everywhere, when the operation returns.
"""

from dataclasses import dataclass

from gateway.model.errors import BadInput
from gateway.model.rights import Rights
from gateway.operations.devices import OVERLAP_MS, revoke_device, take_effect, up_to_date_state
from gateway.operations.site import Site
from gateway.parsers.routes import ParserRoutes
from gateway.storage.credentials import CredentialRow, Credentials, NewPassword, no_credential

SELF_TEST = "self-test-"
"""How the names of credentials begin that live as long as a test of the broker."""


@dataclass(slots=True, frozen=True)
class CredentialDetails:
    """All that is known of one credential, but for its password, which only its owner knows."""

    username: str
    organization_id: str | None
    """None for the site's."""
    device_id: str | None
    """None for an organisation's and the site's."""
    rights: Rights
    created_at_ms: int
    last_connected_at_ms: int | None
    connections: int
    """Logins, since it was made."""
    refused_logins: int
    messages_in: int
    old_password_left_ms: int | None
    """How much longer the password from before the last rotation is good; None when it is not."""


async def list_credentials(site: Site) -> list[CredentialDetails]:
    """Return every credential."""
    credentials = Credentials(await up_to_date_state(site))
    routes = ParserRoutes.of(site.settings)
    return [_details(row, routes) for row in await credentials.all()]


async def show_credential(site: Site, *, username: str) -> CredentialDetails:
    """Return all that is known of one credential. Raises NotFound."""
    for credential in await list_credentials(site):
        if credential.username == username:
            return credential
    raise no_credential(username)


async def add_credential(
    site: Site, *, name: str, organization_id: str | None, is_home_assistant: bool = False
) -> NewPassword:
    """Make a credential of an organisation, or (None) of the site; it may be used at once.

    Raises BadInput or AlreadyExists.
    """
    if name.startswith(SELF_TEST):
        raise BadInput("invalid_credential_id", f"{SELF_TEST}… are names of the gateway's own.", hint="Choose another.")
    credentials = Credentials(await site.state())
    new = await credentials.add(name, organization_id, is_home_assistant=is_home_assistant, by=site.actor)
    await take_effect(site)
    return new


async def rotate_credential(site: Site, *, username: str, overlap_ms: int = OVERLAP_MS) -> NewPassword:
    """Make a new password; the old one is good for so long, and 0 closes its sessions. Raises NotFound."""
    row = await _row(site, username)
    credentials = Credentials(await site.state())
    password = await credentials.rotate(username, overlap_ms, by=site.actor)
    await take_effect(site)
    return NewPassword(username, row.organization_id, password)


async def revoke_credential(site: Site, *, username: str) -> None:
    """Take a credential away, whatever its passwords, and close its sessions. Raises NotFound."""
    row = await _row(site, username)
    if row.organization_id is not None and row.device_id is not None:
        await revoke_device(site, organization_id=row.organization_id, device_id=row.device_id)
        return
    await Credentials(await site.state()).revoke(username, by=site.actor)
    await take_effect(site)


async def _row(site: Site, username: str) -> CredentialRow:
    for row in await Credentials(await site.state()).all():
        if row.username == username:
            return row
    raise no_credential(username)


def _details(row: CredentialRow, routes: ParserRoutes) -> CredentialDetails:
    return CredentialDetails(
        row.username,
        row.organization_id,
        row.device_id,
        routes.rights_of(row.organization_id, row.device_id, is_home_assistant=row.is_home_assistant),
        row.created_at_ms,
        row.last_connected_at_ms,
        row.connections,
        row.refused_logins,
        row.messages_in,
        row.old_password_left_ms if row.old_password_hash is not None else None,
    )
