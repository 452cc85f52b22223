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
