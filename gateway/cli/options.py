"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Configuration file.",
        show_default="$NEUROGATE_CONFIG, ./neurogate.toml, /etc/neurogate/neurogate.toml",
    ),
]

JsonOutput = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

OverlapHours = Annotated[
    float,
    typer.Option(
        min=0, max=8760, help="Hours, of the gateway's running time, that the old password stays good; 0 ends it now."
    ),
]


def overlap_ms(hours: float) -> int:
    """Return an overlap as operations take it."""
    return round(hours * 3_600_000)
