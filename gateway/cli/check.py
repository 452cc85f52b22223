"""`neurogate check`: what can be known without starting the gateway. It changes nothing."""

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import typer
from pydantic import AnyUrl

from cloud_sync.egress import Egress
from cloud_sync.registry import check_config, integration_class
from gateway.cli.options import ConfigFile
from gateway.config import IntegrationTable, LoadedConfig, SerialTable, TlsSettings, load
from gateway.config.substitution import vault_names
from gateway.model.errors import ConfigError, NeurogateError, StoreFailed
from gateway.sources.serial_port import PortAbsent, find_port
from gateway.storage.data_dir import DataDir, load_or_create_key
from gateway.storage.vault_keys import KEY_FILES, Keyring
from gateway.tls.site_tls import server_context, shown_certificate


class _Doubtful(NeurogateError):
    """The gateway runs with it, but somebody should know."""

    code = "doubtful"
    exit_code = 0


def check(config: ConfigFile = None) -> None:
    """Check the configuration and the data directory; start and change nothing."""
    loaded = load(config, os.environ)
    print(f"ok      configuration: {loaded.path or 'no file, only defaults'}")
    exit_code = 0
    for subject, find in _checks(loaded):
        try:
            print(f"ok      {subject}: {find()}")
        except NeurogateError as error:
            print(f"{'FAILED ' if error.exit_code else 'WARNING'} {subject}: {error}", file=sys.stderr)
            exit_code = max(exit_code, error.exit_code)
    raise typer.Exit(exit_code)


def _checks(loaded: LoadedConfig) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield a subject, and what finds out about it: returns words, or raises."""
    for table in loaded.settings.integrations:
        yield f"integration {table.name}", partial(_integration, table, loaded)
    for line in loaded.settings.serial:
        yield f"serial port of {line.device_id}", partial(_serial_port, line)
    if loaded.settings.tls.certificate_file:
        yield "TLS certificate", partial(_certificate, loaded.settings.tls)
    data_dir = DataDir(loaded.settings.gateway.data_dir)
    yield "data directory", partial(_data_dir, data_dir.path)
    if data_dir.password_key.exists():
        yield "password key", partial(_key, data_dir.password_key)
    if list(data_dir.path.glob(KEY_FILES)):
        yield "vault's keys", partial(_vault_keys, data_dir.path)
    for database in (data_dir.log_db, data_dir.state_db):
        if database.exists():
            yield database.name, partial(_schema, database)


def _integration(table: IntegrationTable, loaded: LoadedConfig) -> str:
    config = check_config(table, loaded.origins)
    if config.status == "active" and (lacks := integration_class(table).lacks(config)):
        raise ConfigError(lacks)
    egress = Egress(loaded.settings.egress)
    for _, value in config:
        host = value.host if isinstance(value, AnyUrl) else None
        if host and config.status == "active" and egress.certainly_forbids(host):
            raise _Doubtful(
                f'{host} is not allowed by egress (policy = "{loaded.settings.egress.policy}"): nothing is delivered.',
                hint=f'Set egress.allow = ["{host.strip("[]")}"] if that is meant.',
            )
    names = list(dict.fromkeys(vault_names(table.model_extra)))
    missing = _missing(names, DataDir(loaded.settings.gateway.data_dir).state_db)
    if missing and config.status == "active":
        raise _Doubtful(
            f"{', '.join(missing)}: not in the vault, so it would not be started.",
            hint=f"Put in: {'; '.join(f'neurogate secrets set {name}' for name in missing)}",
        )
    asked = f" (from the vault, at the start: {', '.join(names)}; see neurogate secrets list)" if names else ""
    return f"{config.type}{asked}"


def _missing(names: list[str], state_db: Path) -> list[str]:
    """Return which of these the vault lacks, as far as that can be told: a broken `state.db` is another finding."""
    if not names or not state_db.exists():
        return names
    with suppress(sqlite3.Error), closing(_opened(state_db)) as database:
        known = {name for (name,) in database.execute("SELECT name FROM secrets")}
        return [name for name in names if name not in known]
    return []


def _certificate(settings: TlsSettings) -> str:
    file = Path(settings.certificate_file)
    server_context(file, Path(settings.key_file) if settings.key_file else None)
    return f"{file}, until {shown_certificate(file).not_valid_after_utc:%Y-%m-%d}"


def _serial_port(table: SerialTable) -> str:
    try:
        return str(find_port(table.port))
    except PortAbsent:
        return f"{table.port} is not there now; it is opened when it is plugged in"


def _data_dir(path: Path) -> str:
    nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{nearest} is not a folder this user may write to.",
            hint="Give it to the gateway's user (chown), or set gateway.data_dir.",
        )
    return str(path) if nearest == path else f"{path} (will be created)"


def _key(path: Path) -> str:
    load_or_create_key(path)
    return str(path)


def _vault_keys(folder: Path) -> str:
    ring = Keyring.read(folder)
    ring.require_usable()
    return ", ".join(str(key.path) for key in ring.keys.values())


def _schema(path: Path) -> str:
    try:
        with closing(_opened(path)) as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        raise StoreFailed(f"{path} cannot be read ({error}).", hint="Restore it from a backup.") from None
    return f"schema {version}"


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
