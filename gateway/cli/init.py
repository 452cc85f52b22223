"""`neurogate init`: everything a new gateway needs on disk."""

import os
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.gateway_link import ask
from gateway.config import load
from gateway.config.reference import commented_file
from gateway.model.errors import AlreadyExists, ConfigError
from gateway.operations import tokens
from gateway.storage.data_dir import DataDir, load_or_create_key

FILE_NAME = "neurogate.toml"


def init(
    folder: Annotated[Path, typer.Option("--dir", help="Folder of the configuration file.")] = Path(),
) -> None:
    """Write a commented configuration, a data directory with its key, and show a first token for the HTTP API."""
    path = folder / FILE_NAME
    _write_new(path, commented_file())
    settings = load(path, os.environ).settings
    data_dir = DataDir(settings.gateway.data_dir).ensure()
    load_or_create_key(data_dir.password_key)
    print(f"Wrote {path} and {data_dir.password_key}.")
    if not ask(settings, tokens.list_tokens):  # the data directory may be of an earlier installation
        new = ask(settings, tokens.create_token, name="owner", organization_id=None, role="owner")
        print(f"The site owner's token for the HTTP API: {new.token}   (kept nowhere else: note it now)")
    print("Next: adapt the configuration, then run: neurogate check")


def _write_new(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise AlreadyExists(f"{path} exists.", hint="Edit it, or move it away first.") from None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}).", hint="Choose another folder with --dir."
        ) from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
