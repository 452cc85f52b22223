"""What `doctor` and `diag` learn from a gateway, or from what one has left on disk, before they look any further.

Asking ends within seconds, and then nothing is held: a gateway may be started while the checks still run.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

from gateway.cli.gateway_link import Gateway, connect
from gateway.clock import Clock
from gateway.config import LoadedConfig
from gateway.daemon_thread import in_daemon_thread
from gateway.doctor.evidence import Evidence
from gateway.model.errors import GatewaySilent, NeurogateError, NotFound, StoreFailed
from gateway.model.finding import Finding
from gateway.operations.buffer import buffer_status
from gateway.operations.integrations import list_integrations, try_integration
from gateway.operations.status import gateway_status
from gateway.operations.troubles import list_troubles
from gateway.operations.vitals import gateway_vitals, try_broker

R = TypeVar("R")

_CONNECT_S = 3.0
_ASK_S = 6.0


async def gather(loaded: LoadedConfig, clock: Clock) -> Evidence:
    """Return all that can be learned; what cannot is among the complaints. Makes no data directory."""
    evidence = Evidence(loaded, clock)
    try:
        async with asyncio.timeout(_CONNECT_S):
            if not await in_daemon_thread(evidence.data_dir.state_db.exists):  # a command would make it
                return evidence
    except OSError as error:  # a timeout is one: the folder may be on a network
        return replace(evidence, complaints=(_unreadable(evidence, error),))
    complaints: list[NeurogateError] = []
    try:
        async with connect(loaded.settings, patience_s=_CONNECT_S) as link:
            return await _asked(evidence, link, complaints)
    except NeurogateError as error:
        return replace(evidence, complaints=(*complaints, error))


def _unreadable(evidence: Evidence, error: OSError) -> NeurogateError:
    why = "it does not answer" if isinstance(error, TimeoutError) else error.strerror
    return StoreFailed(
        f"The data directory {evidence.data_dir.path} cannot be looked at: {why}.",
        hint="If it is on a network, see that; else run this as the gateway's user:"
        f" sudo -u {evidence.data_dir.owner} neurogate doctor.",
    )


async def _asked(evidence: Evidence, link: Gateway, complaints: list[NeurogateError]) -> Evidence:
    async def ask(operation: Callable[[Any], Awaitable[R]]) -> R | None:
        if any(isinstance(one, GatewaySilent) for one in complaints):
            return None
        try:
            async with asyncio.timeout(_ASK_S):
                return await link.call(operation)
        except NotFound:  # no log yet
            return None
        except NeurogateError as error:
            complaints.append(error)
        except TimeoutError:
            what = operation.__name__.replace("_", " ")
            complaints.append(
                GatewaySilent(
                    f"Asked for its {what}, the gateway did not answer within {_ASK_S:g} s.",
                    hint="See its log; if it hangs, restart it: no acknowledged reading is lost by that.",
                )
            )
        return None

    status = await ask(gateway_status) if link.is_live else None
    vitals = await ask(gateway_vitals) if link.is_live else None
    buffer = await ask(buffer_status)
    troubles = await ask(list_troubles)
    integrations = await ask(list_integrations)
    return replace(
        evidence,
        is_running=link.is_live,
        status=status,
        vitals=vitals,
        buffer=buffer,
        troubles=troubles,
        integrations=tuple(integrations or ()),
        complaints=tuple(complaints),
        try_integration=_integration_trial(evidence),
        try_broker=_broker_trial(evidence) if status is not None else None,
    )


def _broker_trial(evidence: Evidence) -> Callable[[], Awaitable[list[Finding]]]:
    async def trial() -> list[Finding]:
        async with connect(evidence.settings, patience_s=_CONNECT_S) as link:
            return await link.call(try_broker)

    return trial


def _integration_trial(evidence: Evidence) -> Callable[[str], Awaitable[list[Finding]]]:
    async def trial(integration_id: str) -> list[Finding]:
        async with connect(evidence.settings, patience_s=_CONNECT_S) as link:
            return await link.call(try_integration, integration_id=integration_id)

    return trial
