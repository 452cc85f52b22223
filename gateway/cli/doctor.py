"""`neurogate doctor`: what is wrong, in plain words, and what to do next. It changes nothing."""

import asyncio
import json
import os
import sys

import typer

from gateway.cli.evidence import gather
from gateway.cli.options import ConfigFile, JsonOutput
from gateway.clock import SystemClock
from gateway.config import LoadedConfig, load
from gateway.doctor.checks import CHECKS
from gateway.doctor.examination import Result, examine, is_broken
from gateway.doctor.report import document, lines


def doctor(as_json: JsonOutput = False, config: ConfigFile = None) -> None:
    """Look for what is wrong with the gateway, this machine and the destinations, and say what to do next."""
    results = asyncio.run(examined(load(config, os.environ)))
    if as_json:
        print(json.dumps(document(results)))
    else:
        for line in lines(results, with_signs=_takes_signs()):
            print(line)
    raise typer.Exit(1 if is_broken(results) else 0)


async def examined(loaded: LoadedConfig) -> list[Result]:
    """Return what every check finds; within half a minute, whatever hangs."""
    return await examine(CHECKS, await gather(loaded, SystemClock()))


def _takes_signs() -> bool:
    return sys.stdout.isatty() and (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
