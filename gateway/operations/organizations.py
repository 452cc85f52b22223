"""Organisations: whose devices, readings and tokens there are. A change holds, everywhere, when it returns."""

from gateway.model.errors import Conflict, NotFound
from gateway.operations.devices import take_effect, up_to_date_state
from gateway.operations.site import Site
from gateway.storage.organizations import OrganizationRow, Organizations
from gateway.storage.stored_of import stored_of


async def list_organizations(site: Site) -> list[OrganizationRow]:
    """Return every organisation."""
    return await Organizations(await up_to_date_state(site)).all()


async def show_organization(site: Site, *, organization_id: str) -> OrganizationRow:
    """Return one organisation. Raises NotFound."""
    return await Organizations(await up_to_date_state(site)).get(organization_id)


async def add_organization(site: Site, *, organization_id: str, name: str = "") -> OrganizationRow:
    """Add an organisation. Raises BadInput or AlreadyExists."""
    organizations = Organizations(await site.state())
    await organizations.add(organization_id, name, by=site.actor)
    await take_effect(site)
    return await organizations.get(organization_id)


async def rename_organization(site: Site, *, organization_id: str, name: str) -> OrganizationRow:
    """Give an organisation another name; its id stays. Raises BadInput or NotFound."""
    organizations = Organizations(await site.state())
    await organizations.rename(organization_id, name, by=site.actor)
    return await organizations.get(organization_id)


async def remove_organization(site: Site, *, organization_id: str) -> None:
    """Take an organisation away, with its tokens.

    Raises NotFound, and Conflict while the configuration names it, or it has devices, credentials, subscriptions or
    integrations, or anything is stored of it: another one of that id would see it.
    """
    if organization_id in site.settings.organizations:
        raise Conflict(f"{organization_id} is in the configuration.", hint="Take it out there first.")
    organizations = Organizations(await up_to_date_state(site))
    await organizations.get(organization_id)
    if stored := await _stored_of(site, organization_id):
        raise Conflict(
            f"Something is stored of {organization_id}: {', '.join(stored)}.",
            hint=f"Erase what its devices sent: neurogate buffer erase --organization {organization_id} --device …",
        )
    await organizations.remove(organization_id, by=site.actor)
    await take_effect(site)


async def _stored_of(site: Site, organization_id: str) -> list[str]:
    try:
        log = await site.log()
    except NotFound:
        return []
    return await stored_of(log, organization_id)
