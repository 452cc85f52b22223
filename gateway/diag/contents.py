"""What is in a bundle: each file with a word on what it is. Readings, payloads and secrets are in none."""

import json
import platform
import sqlite3
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from typing import Any

from gateway import __version__
from gateway.config.masking import MASK, looks_secret
from gateway.diag.store_figures import store_figures
from gateway.doctor.evidence import Evidence
from gateway.doctor.examination import Result
from gateway.doctor.report import document, lines
from gateway.model.errors import ConfigError
from gateway.model.vitals import Trace
from gateway.shown_config import shown_settings


@dataclass(slots=True, frozen=True)
class Item:
    """One file."""

    name: str
    what: str
    content: Any
    """A text, or what becomes JSON."""

    def written(self, clean: Callable[[str], str]) -> str:
        """Return the text of the file; every text in it has gone through `clean`, and JSON stays JSON."""
        if isinstance(self.content, str):
            return clean(self.content)
        return json.dumps(_cleaned(self.content, clean), indent=1, ensure_ascii=False)


def contents(
    evidence: Evidence, results: Sequence[Result], trace: Trace | None, journal: str, environ: Mapping[str, str]
) -> Iterator[Item]:
    """Yield the files; those of which nothing is known are left out. Looks at the disk, so not for an event loop."""
    yield Item("versions.json", "versions of neurogate, Python, the system and the libraries", _versions())
    yield Item("config.txt", "the configuration with the origin of each value; secrets are masked", _config(evidence))
    yield Item("environment.txt", "names of the environment's NEUROGATE_ variables, no values", _names(environ))
    yield Item("doctor.txt", "what neurogate doctor found", "\n".join(lines(results, with_signs=False)))
    yield Item("doctor.json", "the same for programs", document(results))
    data_dir = evidence.data_dir.path
    yield Item("store.json", "sizes of the files, schema versions, rows of each table", store_figures(data_dir))
    if evidence.status is not None:
        yield Item("status.json", "what /ready says: buffer, destinations, device ids", asdict(evidence.status))
    if evidence.buffer is not None:
        yield Item("buffer.json", "how far each destination is", asdict(evidence.buffer))
    if evidence.troubles is not None:
        what = "device ids with when each was heard; reasons of quarantined input and dead letters, no payloads"
        yield Item("troubles.json", what, asdict(evidence.troubles))
    if evidence.vitals is not None:
        yield Item("metrics.txt", "what /metrics says", evidence.vitals.metrics)
        vitals = {name: value for name, value in asdict(evidence.vitals).items() if name != "metrics"}
        yield Item("vitals.json", "memory, open files, and who logged in or failed to, lately", vitals)
    if trace is not None:
        yield Item("log.txt", "the last lines of the log: device ids and addresses, no payloads", "\n".join(trace.log))
        yield Item("tasks.txt", "what the gateway does at this moment: tasks", "\n".join(trace.tasks))
        yield Item("threads.txt", "and threads: places in the code, no values", "\n\n".join(trace.threads))
    if journal:
        yield Item("journal.txt", "the last lines of the service in the system's journal", journal)
    if evidence.complaints:
        yield Item("problems.txt", "what could not be learned", "\n".join(map(str, evidence.complaints)))


def _versions() -> dict[str, Any]:
    system: dict[str, Any] = {
        "neurogate": __version__,
        "python": sys.version,
        "system": platform.platform(),
        "machine": platform.machine(),
        "sqlite": sqlite3.sqlite_version,
        "openssl": ssl.OPENSSL_VERSION,
    }
    with suppress(OSError):
        system["distribution"] = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    libraries = {one.metadata["Name"]: one.version for one in distributions()}
    return system | {"libraries": dict(sorted(libraries.items()))}


def _config(evidence: Evidence) -> str:
    try:
        settings = shown_settings(evidence.loaded)
    except ConfigError as error:
        return f"It cannot be shown: {error}"
    # No `key = value`: what follows that is hidden if the key looks secret, and so would be that nothing is set.
    return "\n".join(f"{one.key:<50} {json.dumps(one.value, default=str)}  # {one.origin}" for one in settings)


def _names(environ: Mapping[str, str]) -> str:
    return "\n".join(sorted(name for name in environ if name.startswith("NEUROGATE_")))


def _cleaned(value: Any, clean: Callable[[str], str]) -> Any:  # noqa: ANN401 - what JSON may hold
    match value:
        case dict():
            return {clean(str(name)): _of_key(str(name), inner, clean) for name, inner in value.items()}
        case list() | tuple():
            return [_cleaned(inner, clean) for inner in value]
        case None | bool() | int() | float():
            return value
    return clean(str(value))


def _of_key(name: str, value: Any, clean: Callable[[str], str]) -> Any:  # noqa: ANN401 - what JSON may hold
    is_secret = isinstance(value, str) and value and looks_secret(name)
    return MASK if is_secret else _cleaned(value, clean)
