"""`neurogate diag`: a support bundle, with what neurogate doctor found and what the gateway does, without secrets."""

import asyncio
import json
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.evidence import gather
from gateway.cli.gateway_link import connect
from gateway.cli.options import ConfigFile, JsonOutput
from gateway.clock import Clock, SystemClock
from gateway.config import GatewaySettings, LoadedConfig, load
from gateway.diag.anonymity import Anonymity, hosts_in
from gateway.diag.bundle import write_bundle
from gateway.diag.contents import Item, contents
from gateway.diag.redaction import Redaction
from gateway.doctor.checks import CHECKS
from gateway.doctor.evidence import Evidence
from gateway.doctor.examination import examine
from gateway.model.errors import NeurogateError
from gateway.model.vitals import Trace
from gateway.operations.vitals import gateway_trace

_PATIENCE_S = 5.0
_JOURNAL = ("journalctl", "--unit", "neurogate", "--lines", "500", "--output", "cat", "--no-pager", "--quiet")


def diag(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to.", show_default="neurogate-diag-TIME.tar.gz")
    ] = None,
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="Give devices, organisations, machines and addresses other names.")
    ] = False,
    as_json: JsonOutput = False,
    config: ConfigFile = None,
) -> None:
    """Write a support bundle: configuration, checks, status, metrics, the last log lines. No secrets, no readings."""
    clock = SystemClock()
    at_s = clock.now_ms() // 1000
    path = output or Path(f"neurogate-diag-{datetime.fromtimestamp(at_s, UTC):%Y%m%dT%H%M%SZ}.tar.gz")
    loaded = load(config, os.environ)
    evidence, items = asyncio.run(_collected(loaded, clock))
    inside = write_bundle(path, items, _cleaner(evidence, anonymous=anonymous), at_s=at_s)
    if as_json:
        print(json.dumps({"path": str(path), "files": {one.name: one.what for one in inside}}))
        return
    print(f"{path} holds:")
    for one in inside:
        print(f"  {one.name:<18} {one.what}")
    print("Secrets are masked, and readings are not in it. Look through it before you send it.")


async def _collected(loaded: LoadedConfig, clock: Clock) -> tuple[Evidence, list[Item]]:
    evidence = await gather(loaded, clock)
    trace: Trace | None = None
    if evidence.is_running:
        try:
            async with asyncio.timeout(_PATIENCE_S), connect(loaded.settings, patience_s=_PATIENCE_S) as link:
                trace = await link.call(gateway_trace)
        except NeurogateError as error:
            evidence = replace(evidence, complaints=(*evidence.complaints, error))
        except TimeoutError:
            pass  # that it is silent is among the complaints, or the checks say it
    results = await examine(CHECKS, evidence)
    journal = "" if trace is not None else await _journal()
    return evidence, await asyncio.to_thread(lambda: list(contents(evidence, results, trace, journal, os.environ)))


async def _journal() -> str:
    """Return what the service logged last, where there is a journal and this user may read it."""
    try:
        process = await asyncio.create_subprocess_exec(
            *_JOURNAL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            stdin=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return ""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            out, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return ""
    return out.decode(errors="replace")


def _cleaner(evidence: Evidence, *, anonymous: bool) -> Callable[[str], str]:
    redaction = Redaction.of(evidence.loaded, os.environ, evidence.data_dir.path)
    if not anonymous:
        return redaction.redacted
    devices = {
        (one.organization_id, one.device_id)
        for some in (
            evidence.troubles.devices if evidence.troubles is not None else (),
            evidence.status.devices if evidence.status is not None else (),
            evidence.settings.serial,
        )
        for one in some
    }
    ours, usual = evidence.settings.gateway, GatewaySettings()
    organizations = {ours.organization_id, *(organization for organization, _ in devices)}
    organizations |= {one.organization_id for one in evidence.integrations}
    anonymity = Anonymity(
        {usual.id, usual.organization_id, f"org_{usual.organization_id}"},
        device=[device for _, device in devices],
        organization=[*organizations, *(f"org_{one}" for one in organizations)],
        gateway=[ours.id],
        machine=[socket.gethostname()],
        destination=[
            *(one.name for one in evidence.settings.integrations),
            *(one.name for one in evidence.integrations),
        ],
        host=hosts_in(evidence.loaded, evidence.integrations),
    )
    return lambda text: anonymity.renamed(redaction.redacted(text))
