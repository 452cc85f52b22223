"""`${env:NAME}` and `${file:/path}` inside the strings of a configuration.

A reference may be the whole string or a part of it. A file's trailing newline is dropped. What is put in is
not read again for references.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from gateway.model.errors import ConfigError

_REFERENCE = re.compile(r"\$\{(?P<kind>[a-z]+):(?P<name>[^}]*)\}", re.IGNORECASE)


def references(text: str) -> list[str]:
    """Return the references as they are written, such as `${env:WEBHOOK_SECRET}`."""
    return [match.group() for match in _REFERENCE.finditer(text)]


def substitute(text: str, environ: Mapping[str, str], folder: Path) -> str:
    """Put in what the references stand for; relative files are looked for in `folder`.

    Raises a ConfigError whose message goes on a sentence that begins with the key.
    """

    def value(match: re.Match[str]) -> str:
        kind, name = match["kind"], match["name"]
        if kind == "env":
            return _from_environment(name, environ)
        if kind == "file":
            return _from_file(name, folder)
        raise ConfigError(f"uses {match.group()}, which is not known.", hint="Write ${env:NAME} or ${file:/path}.")

    return _REFERENCE.sub(value, text)


def _from_environment(name: str, environ: Mapping[str, str]) -> str:
    if name not in environ:
        raise ConfigError(f"uses ${{env:{name}}}, which is not set.", hint=f"Set the environment variable {name}.")
    return environ[name]


def _from_file(name: str, folder: Path) -> str:
    try:
        text = (folder / name).read_text("utf-8")
    except OSError as error:
        raise ConfigError(
            f"uses ${{file:{name}}}, which cannot be read ({error.strerror}).",
            hint=f"Create {folder / name}, or allow the gateway to read it.",
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(
            f"uses ${{file:{name}}}, which is not UTF-8 text.", hint=f"Store {folder / name} as UTF-8."
        ) from None
    return text.removesuffix("\n").removesuffix("\r")
