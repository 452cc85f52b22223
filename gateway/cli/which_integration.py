"""Which integration a command means: people know it by its name, programs by its id."""

from gateway.cli.gateway_link import ask
from gateway.config import Settings
from gateway.model.errors import BadInput, NotFound
from gateway.operations.integrations import IntegrationView, list_integrations


def find_integration(settings: Settings, which: str, organization: str | None) -> IntegrationView:
    """Return the one of this id, else of this name (None: of any organisation). Raises NotFound and BadInput."""
    known = ask(settings, list_integrations, organization_id=organization)
    found = [one for one in known if one.id == which] or [one for one in known if one.name == which]
    if not found:
        raise NotFound(
            f"There is no integration {which[:100]}.", hint="neurogate integration list shows what there is."
        )
    if len(found) > 1:
        whose = ", ".join(one.organization_id or "the file" for one in found)
        raise BadInput("ambiguous", f"Several have an integration {which}: {whose}.", hint="Name it by its id.")
    return found[0]
