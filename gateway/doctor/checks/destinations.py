"""Whether each destination can be reached: its name, its address, its certificate, and an answer from it."""

import asyncio
from dataclasses import replace

from cloud_sync.contract import IntegrationConfig, Tests
from cloud_sync.egress import Egress
from cloud_sync.registry import check_config, integration_class, load_config
from gateway.config import IntegrationTable
from gateway.doctor.evidence import Evidence
from gateway.model.errors import ConfigError, NeurogateError
from gateway.model.finding import Finding, broken, fine, warning
from gateway.operations.integrations import IntegrationView

_LIMIT_S = 13.0
_INACTIVE = fine("It is inactive: nothing is sent to it.")


async def destinations(evidence: Evidence) -> list[Finding]:
    """Ask each, all at once."""
    tables = evidence.settings.integrations
    rows = [one for one in evidence.integrations if one.origin == "api"]
    if not tables and not rows:
        return [
            warning("There is no destination: readings stay in the log.", "Add [[integrations]] where they are to go.")
        ]
    names = [*(table.name for table in tables), *(row.name for row in rows)]
    trials = [
        *(_destination(table, evidence) for table in tables),
        *(_of_an_organisation(row, evidence) for row in rows),
    ]
    return [
        replace(finding, words=f"{name}: {finding.words}")
        for name, findings in zip(names, await asyncio.gather(*trials), strict=True)
        for finding in findings
    ]


async def _of_an_organisation(row: IntegrationView, evidence: Evidence) -> list[Finding]:
    if row.status == "inactive":
        return [_INACTIVE]
    return await _tried(row.id, evidence)


async def _tried(integration_id: str, evidence: Evidence) -> list[Finding]:
    """Let the gateway try it, or the store: the vault is open there."""
    if evidence.try_integration is None:
        return []
    try:
        async with asyncio.timeout(_LIMIT_S):
            return await evidence.try_integration(integration_id)
    except TimeoutError:
        return [_silent()]
    except NeurogateError as error:
        return [broken(error.message, error.hint)]


async def _destination(table: IntegrationTable, evidence: Evidence) -> list[Finding]:
    origins = evidence.loaded.origins
    try:
        if check_config(table, origins).status == "inactive":
            return [_INACTIVE]
    except ConfigError as error:
        return [broken(error.message, error.hint)]
    try:
        config = load_config(table, origins)
    except ConfigError:  # a secret of the vault
        return await _tried(table.name, evidence)
    try:
        async with asyncio.timeout(_LIMIT_S):
            return await _asked(table, config, evidence)
    except TimeoutError:
        return [_silent()]


def _silent() -> Finding:
    return broken(f"It did not answer within {_LIMIT_S:g} s.", "See whether it runs; nothing is lost meanwhile.")


async def _asked(table: IntegrationTable, config: IntegrationConfig, evidence: Evidence) -> list[Finding]:
    integration = integration_class(table)(config, evidence.clock, Egress(evidence.settings.egress))
    if not isinstance(integration, Tests):
        return [fine("It cannot be tried without a reading; see the check delivery.")]
    async with integration:
        return await integration.check()
