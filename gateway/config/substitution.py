"""`${env:NAME}`, `${file:/path}` and `${vault:NAME}` inside the strings of a configuration.

A reference may be the whole string or a part of it. A file's trailing newline is dropped. What is put in is
not read again for references. The vault is not open yet when a configuration is read: a string with secrets of it
becomes a `FromVault`, and whoever has the vault puts them in.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.model.errors import ConfigError
from gateway.model.secret import is_secret_name

_REFERENCE = re.compile(r"\$\{(?P<kind>[a-z]+):(?P<name>[^}]*)\}", re.IGNORECASE)


@dataclass(slots=True, frozen=True)
class FromVault:
    """A string that is known when the vault is open."""

    texts: tuple[str, ...]
    """What stands around the secrets: one more than there are of them."""
    names: tuple[str, ...]

    def __str__(self) -> str:
        return self.resolved(lambda name: f"${{vault:{name}}}")

    def resolved(self, secret_of: Callable[[str], str]) -> str:
        """Return the whole string."""
        pairs = zip(self.names, self.texts[1:], strict=True)
        return self.texts[0] + "".join(secret_of(name) + text for name, text in pairs)


def vault_names(value: Any) -> Iterator[str]:  # noqa: ANN401 - TOML
    """Yield the names of all secrets of the vault in a value."""
    if isinstance(value, FromVault):
        yield from value.names
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from vault_names(inner)


def with_secrets(value: Any, secret_of: Callable[[str], str]) -> Any:  # noqa: ANN401 - TOML
    """Return the value with the secrets of the vault put in."""
    if isinstance(value, FromVault):
        return value.resolved(secret_of)
    if isinstance(value, dict):
        return {name: with_secrets(inner, secret_of) for name, inner in value.items()}
    if isinstance(value, list):
        return [with_secrets(inner, secret_of) for inner in value]
    return value


def references(text: str) -> list[str]:
    """Return the references as they are written, such as `${env:WEBHOOK_SECRET}`."""
    return [match.group() for match in _REFERENCE.finditer(text)]


def substitute(text: str, environ: Mapping[str, str], folder: Path, *, may_use_vault: bool = False) -> str | FromVault:
    """Put in what the references stand for; relative files are looked for in `folder`.

    Raises a ConfigError whose message goes on a sentence that begins with the key.
    """
    texts, names, end = [""], list[str](), 0
    for match in _REFERENCE.finditer(text):
        texts[-1] += text[end : match.start()]
        end = match.end()
        kind, name = match["kind"], match["name"]
        if kind == "vault":
            _check_vault_name(name, may_use_vault=may_use_vault)
            names.append(name)
            texts.append("")
        elif kind in ("env", "file"):
            texts[-1] += _from_environment(name, environ) if kind == "env" else _from_file(name, folder)
        else:
            raise ConfigError(
                f"uses {match.group()}, which is not known.",
                hint="Write ${env:NAME}, ${file:/path} or, in an integration, ${vault:NAME}.",
            )
    texts[-1] += text[end:]
    return FromVault(tuple(texts), tuple(names)) if names else texts[0]


def _check_vault_name(name: str, *, may_use_vault: bool) -> None:
    if not may_use_vault:
        raise ConfigError(
            f"uses ${{vault:{name}}}, which is possible only in an integration's own keys.",
            hint="Use ${env:NAME} or ${file:/path} here.",
        )
    if not is_secret_name(name):
        raise ConfigError(
            f"uses ${{vault:{name}}}, but no secret can have this name.", hint="neurogate secrets list shows the names."
        )


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
