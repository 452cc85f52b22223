"""What integrations there are to be, by the file and by the rows: each with its configuration, or why there is none."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Literal

from cloud_sync.contract import Forwards, IntegrationConfig
from cloud_sync.registry import check_config, class_of, integration_class
from gateway.config import IntegrationTable, Settings
from gateway.model.errors import ConfigError, NeurogateError
from gateway.model.selection import Selection
from gateway.operations.integration_claims import TAKEN
from gateway.operations.integration_configs import config_of_row, config_of_table
from gateway.storage.integrations import IntegrationRow
from gateway.storage.state import State


@dataclass(slots=True, frozen=True)
class Wanted:
    """One integration as the file or a row has it."""

    id: str
    """A row's id, or the name that the file gives; the name of its cursor."""
    name: str
    organization_id: str
    """Empty for one of the file: it may serve every organisation."""
    origin: Literal["api", "file"]
    type: str
    config: IntegrationConfig | None
    """None when it cannot be started."""
    is_active: bool
    start: str = "now"
    selection: Selection = field(default_factory=Selection)
    forwards: bool | None = None
    """Whether it takes readings; None when nobody knows, since its package is gone."""
    why: str = ""
    """It cannot be started."""

    def brings_for(self, home: str) -> str:
        """Return whose readings come in through it: its organisation's; through one of the file, of the one it names.

        Where it names none, or several, that is the gateway's own, `home`.
        """
        named = () if self.config is None else self.config.organizations
        return self.organization_id or (named[0] if len(named) == 1 else home)

    def is_as(self, other: "Wanted") -> bool:
        """Whether nothing has to be done to make one of the other, but to call it otherwise."""
        return replace(self, name="") == replace(other, name="")


def check_integrations(settings: Settings, origins: Mapping[str, str] = MappingProxyType({})) -> None:
    """Check those of the file as far as that is possible before the vault is open. Raises ConfigError.

    Whoever knows where each setting came from says so: an error repeats no value that the environment or a file gave.
    """
    for table in settings.integrations:
        check_config(table, origins)


async def wanted_by_file(table: IntegrationTable, state: State) -> Wanted:
    """Return what the file wants. Raises ConfigError and StoreFailed."""
    known = integration_class(table)
    common = check_config(table)
    of_it = partial(
        Wanted,
        table.name,
        table.name,
        "",
        "file",
        table.type,
        is_active=common.status == "active",
        start=common.start,
        selection=common.selection,
    )
    is_able = issubclass(known, Forwards)
    if common.status != "active":
        return of_it(config=common, forwards=is_able)
    try:
        config = await config_of_table(table, state)
    except NeurogateError as error:
        return of_it(config=None, forwards=is_able, why=str(error))
    why = known.lacks(config)
    return of_it(config=None if why else config, forwards=is_able and config.takes_readings, why=why)


async def wanted_by_row(row: IntegrationRow, state: State) -> Wanted:
    """Return what an organisation wants. Raises StoreFailed."""
    of_it = partial(Wanted, row.id, row.name, row.organization_id, "api", row.integration_type)
    alone = Selection(organizations=frozenset({row.organization_id}))
    try:
        known = class_of(row.integration_type)
    except ConfigError as error:
        return of_it(config=None, is_active=row.is_wanted, selection=alone, why=str(error))
    forwards = issubclass(known, Forwards)
    if not row.is_wanted:
        return of_it(config=None, is_active=False, forwards=forwards)
    try:
        config = await config_of_row(row, state)
    except NeurogateError as error:
        return of_it(config=None, is_active=True, selection=alone, forwards=forwards, why=str(error))
    why = known.lacks(config)
    return of_it(
        config=None if why else config,
        is_active=True,
        start=config.start,
        selection=config.selection,
        forwards=forwards and config.takes_readings,
        why=why,
    )


def each_alone(wanted: Iterable[Wanted], gateway_id: str) -> Iterator[Wanted]:
    """Yield them; of those that claim to be the same elsewhere, only the first can be started."""
    claimed: set[str] = set()
    for one in wanted:
        claims = one.config.claims(gateway_id) if one.is_active and one.config is not None else ()
        double = next((claim for claim in claims if claim in claimed), None)
        if double is None:
            claimed.update(claims)
            yield one
        else:
            yield replace(one, config=None, why=TAKEN)


def notice_of(one: Wanted) -> str:
    """Say of one that cannot be started what everybody may know; empty for others."""
    if not one.why:
        return ""
    if one.origin == "file":
        return f"The integration {one.id} is not started (restart the gateway when this is mended): {one.why}"
    return f"The integration {one.id} is not started: neurogate integration show {one.id} says why."
