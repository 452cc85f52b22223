"""Put the configuration together: defaults, then the file, then the environment; the later one wins.

- the file is the one named, else `$NEUROGATE_CONFIG`, else the first that exists of `FILES`, else none
- `NEUROGATE_SECTION__KEY` sets one key of one section; integrations and serial lines are only in the file
- every value knows where it came from
- all problems are reported at once, as one ConfigError
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gateway.config.problems import Problem, config_error, did_you_mean, explain, nearest, place
from gateway.config.schema import Location, settings_of
from gateway.config.settings import Settings
from gateway.config.substitution import FromVault, references, substitute
from gateway.model.errors import ConfigError

FILES = (Path("neurogate.toml"), Path("/etc/neurogate/neurogate.toml"))

_PREFIX = "NEUROGATE_"
_TOML_POSITION = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")

_INTEGRATIONS_OWN = re.compile(r"integrations\[[^\]]*\]\.(?!(type|name)$).+")
"""The keys that may hold secrets of the vault: it is open before integrations are."""

Table = dict[str, Any]


@dataclass(slots=True, frozen=True)
class LoadedConfig:
    """Settings that hold, and where each came from."""

    settings: Settings
    origins: Mapping[str, str]
    """Dotted key to `default`, `file PATH` or `environment NAME`, and `(from ${…})` after a substitution.

    An integration's keys are `integrations[name].key`.
    """
    path: Path | None
    """The file that was read."""


def load(path: Path | None, environ: Mapping[str, str]) -> LoadedConfig:
    """Read, merge and validate. Raises ConfigError."""
    path = path or _find(environ)
    folder = path.parent.absolute() if path else Path.cwd()
    draft = _Draft(environ, folder)
    if path:
        draft.add(_read(path), f"file {path}")
    draft.add_environment()
    settings = draft.validated()
    gateway = settings.gateway.model_copy(update={"data_dir": folder / settings.gateway.data_dir})
    tls = settings.tls
    files = {"certificate_file": tls.certificate_file, "key_file": tls.key_file}
    tls = tls.model_copy(update={name: str(folder / file) for name, file in files.items() if file})
    origins = {key: "default" for key, _ in settings_of(Settings)} | draft.origins
    return LoadedConfig(settings.model_copy(update={"gateway": gateway, "tls": tls}), origins, path)


def environment_name(key: str) -> str:
    """Return the variable that sets `section.key`."""
    return _PREFIX + key.upper().replace(".", "__")


def _find(environ: Mapping[str, str]) -> Path | None:
    if named := environ.get("NEUROGATE_CONFIG"):
        return Path(named)
    return next((path for path in FILES if path.exists()), None)


def _read(path: Path) -> Table:
    try:
        text = path.read_text("utf-8")
        return tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(
            f"There is no configuration file {path}.",
            hint="Correct --config or NEUROGATE_CONFIG, or write one with: neurogate init",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}).", hint="Allow the gateway's user to read it."
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}).", hint="Save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, text, str(error)) from None


def _syntax_error(path: Path, text: str, complaint: str) -> ConfigError:
    """Make tomllib's "... (at line 3, column 8)" one of ours."""
    position = _TOML_POSITION.search(complaint)
    before, _, last_line = text.rpartition("\n")
    line, column = (position["line"], position["column"]) if position else (None, None)
    line, column = line or str(before.count("\n") + 1 + ("\n" in text)), column or str(len(last_line) + 1)
    words = complaint[: position.start()] if position else complaint
    return ConfigError(
        f"{path}, line {line}, column {column}: {words}.", hint="Correct the TOML (see https://toml.io)."
    )


@dataclass(slots=True)
class _Draft:
    """The tree being put together, with the origin of each leaf and what went wrong so far."""

    environ: Mapping[str, str]
    folder: Path
    tree: Table = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: dict[str, Problem] = field(default_factory=dict)
    """By key: one problem is enough for a key, and the first is the cause."""

    def add(self, table: Table, origin: str) -> None:
        """Take the tables of a file."""
        self.tree = {name: self._resolved(name, value, origin) for name, value in table.items()}

    def add_environment(self) -> None:
        """Put the environment's settings over what is there."""
        names = {environment_name(key): key for key, _ in settings_of(Settings) if "." in key}
        flat = {name.replace("__", "_"): name for name in names}
        for variable in sorted(name for name in self.environ if name.startswith(_PREFIX)):
            section, separator, name = variable.removeprefix(_PREFIX).lower().partition("__")
            if variable in names:
                self.problems.pop(names[variable], None)  # what the file says there counts no more
                value = self._resolved(names[variable], self.environ[variable], f"environment {variable}")
                table = self.tree.setdefault(section, {})
                if isinstance(table, dict):
                    table[name] = value
            elif separator or variable in flat:
                meant = [flat[variable]] if variable in flat else nearest(variable, names)
                self.problems[variable] = _unknown_variable(variable, meant)

    def validated(self) -> Settings:
        """Return the settings, or raise one error with every problem."""
        try:
            settings = Settings.model_validate(self.tree)
        except ValidationError as error:
            for key, problem in explain(error, Settings, self.origins, self._key_of):
                self.problems.setdefault(key, problem)
        if self.problems:
            raise config_error(list(self.problems.values()))
        return settings

    def _resolved(self, key: str, value: Any, origin: str) -> Any:  # noqa: ANN401 - TOML
        """Return the value with its references put in, and note the origin of each leaf."""
        if isinstance(value, dict):
            return {name: self._resolved(f"{key}.{name}", inner, origin) for name, inner in value.items()}
        if isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
            return [self._resolved(_item_key(key, i, item), item, origin) for i, item in enumerate(value)]
        if key.endswith("].name"):  # an identity stays as it is written: our own keys contain it
            self.origins[key] = origin
            return value
        used = list(dict.fromkeys(_references_in(value)))
        self.origins[key] = f"{origin} (from {', '.join(used)})" if used else origin
        try:
            may_use_vault = _INTEGRATIONS_OWN.fullmatch(key) is not None
            return _mapped(value, lambda text: substitute(text, self.environ, self.folder, may_use_vault=may_use_vault))
        except ConfigError as error:
            self.problems[key] = Problem(f"{key} in {place(origin)} {error.message}", error.hint)
            return value

    def _key_of(self, location: Location) -> str:
        key, at = "", self.tree
        for step in location:
            at = _step(at, step)
            key = f"{key}.{step}".lstrip(".") if isinstance(step, str) else _item_key(key, step, at)
        return key


def _unknown_variable(variable: str, meant: list[str]) -> Problem:
    for name, what in (("INTEGRATIONS__", "Integrations"), ("SERIAL__", "Serial lines")):
        if variable.startswith(_PREFIX + name):
            return Problem(f"{variable} is not possible.", f"{what} are configured in the file only.")
    return Problem(f"Unknown setting {variable} in the environment.", did_you_mean(meant))


def _item_key(key: str, index: int, item: object) -> str:
    """Name a table in a list by its `name`, since that is how its owner knows it."""
    name = item.get("name") if isinstance(item, dict) else None
    return f"{key}[{name}]" if isinstance(name, str) else f"{key}[{index}]"


def _step(at: Any, step: int | str) -> Any:  # noqa: ANN401 - TOML
    try:
        return at[step]
    except (KeyError, IndexError, TypeError):
        return None


def _references_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield from references(value)
    elif isinstance(value, list):
        for inner in value:
            yield from _references_in(inner)


def _mapped(value: Any, change: Callable[[str], str | FromVault]) -> Any:  # noqa: ANN401 - TOML
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_mapped(inner, change) for inner in value]
    return value
