"""Whatever a release has left on disk, this one goes on with it: nothing is lost, also by a death in the middle.

A migration that is appended is tried here by itself; nothing has to be added for it.
"""

import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.access import Access
from gateway.callers import Callers
from gateway.clock import ManualClock
from gateway.config import Settings, StorageSettings, load
from gateway.metrics import Metrics
from gateway.model.reading import NewReading, TimeSource
from gateway.parsers.routes import ParserRoutes
from gateway.storage.credentials import NewPassword
from gateway.storage.cursors import Attempt
from gateway.storage.log import Log
from gateway.storage.migrations import Migration, migrate
from gateway.storage.mqtt_messages import Frozen, MqttMessages, Position
from gateway.storage.mqtt_store import MqttStore
from gateway.storage.state import DeviceCredential, State
from tests.broker import raw
from tests.gateway_process import ROOT
from tests.site import reading, running_site
from tests.storage.killed_migration import STEPS
from tests.storage.released import RELEASES, bring_back, known
from tests.storage.released.record import ACKNOWLEDGED, KEY, READINGS, REFUSED, T0

EACH = pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
BOTH = pytest.mark.parametrize("database", ["log", "state"])

Schema = dict[str, str]
"""By the name of a table, index or trigger, the SQL that made it."""


def schema(db: sqlite3.Connection) -> Schema:
    return dict(db.execute("SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'").fetchall())


def counts(db: sqlite3.Connection) -> dict[str, int]:
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    return {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}


def made_by(migrations: tuple[Migration, ...]) -> Schema:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db, migrations, Path("memory"))
        return schema(db)


def migrated(release: Path, database: str, folder: Path) -> Iterator[sqlite3.Connection]:
    path = folder / f"{database}.db"
    bring_back(release, database, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        yield db
        migrate(db, STEPS[database], path)
        yield db


def test_every_published_version_is_recorded() -> None:
    published = re.findall(r"^## \[([\d.]+)\] - \d{4}-", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert set(published) <= {release.name for release in RELEASES}, "python -m tests.storage.released.record"
    assert RELEASES


@EACH
@BOTH
def test_what_was_released_is_recorded_whole_and_not_edited_since(release: Path, database: str, tmp_path: Path) -> None:
    steps = migrated(release, database, tmp_path)
    db = next(steps)
    assert all(counts(db).values()), "a table without a row is not tried"
    (version,) = db.execute("PRAGMA user_version").fetchone()
    assert schema(db) == made_by(STEPS[database][:version]), "append a migration; what was released stays as it is"


@EACH
@BOTH
def test_no_table_loses_a_row(release: Path, database: str, tmp_path: Path) -> None:
    steps = migrated(release, database, tmp_path)
    before = counts(next(steps))
    db = next(steps)
    after = counts(db)
    assert {name: after[name] for name in before if after.get(name, 0) < before[name]} == {}
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []


@EACH
async def test_readings_and_all_that_is_said_of_them_are_still_there(release: Path, tmp_path: Path) -> None:
    clock = ManualClock(T0 + 60_000)
    bring_back(release, "log", tmp_path / "log.db")
    bring_back(release, "state", tmp_path / "state.db")
    async with (
        State.open(tmp_path / "state.db", KEY, clock=clock) as state,
        Log.create(tmp_path / "log.db", StorageSettings(), clock=clock, metrics=Metrics()) as log,
    ):
        assert log.uuid == known(release)["log_uuid"]
        found = await log.read(0, limit=100)
        rows = list(range(1, READINGS + 1))
        assert [one.row for one in found] == [one.seq for one in found] == rows
        assert [one.time_ms - T0 for one in found] == [one.body["sensors"]["pir"]["pulses"] for one in found] == rows
        assert {(one.organization_id, one.device_id, one.boot_id) for one in found} == {("default", "kitchen", "b")}
        assert all(one.device_metadata == {"room": "kitchen"} for one in found)

        cursor = await log.open_cursor("building", start="now")
        attempt = Attempt("building", "msg_frozen", ACKNOWLEDGED, READINGS, READINGS - ACKNOWLEDGED, "00", T0 + 6_000)
        assert (cursor.position, cursor.attempt) == (ACKNOWLEDGED, attempt)
        (letter,) = await log.dead_letters.letters()
        assert (letter.key, letter.provisional) == (("building", REFUSED), False)
        assert letter.reading.body["seq"] == REFUSED
        assert [entry.payload for _, entry in await log.quarantined()] == [b"{"]

        stream = log.stream("default", "kitchen", "b")
        for seq in (READINGS, READINGS + 1):
            await log.append([NewReading(stream, seq, T0, TimeSource.DEVICE, T0, 0, b"{}")])
        assert (log.stored, log.duplicates) == (1, 1)  # P2
        assert log.last_row > READINGS

        store = MqttStore(log)
        kept = await store.load()
        assert [(one.client, one.subscriptions, one.received) for one in kept.sessions.values()] == [
            ("hub|panel", {"default/devices/#": 1}, [7])
        ]
        assert [message.payload for message in kept.sessions[1].outbox] == [b"waits"]
        assert kept.retained == [("default/devices/kitchen/status", b"retained", 1)]
        messages = MqttMessages(log, store, state, clock, Metrics(), max_messages=9, max_bytes=10**6, max_age_s=1e6)
        await messages.open()
        subscription = known(release)["subscription"]
        assert messages.positions == {subscription: Position(0, Frozen("msg_1", 0, 1, 1))}
        page, _ = await messages.read(messages.subscriptions[subscription], 0, until=1, limit=9)
        assert [message.payload for message in page] == [b'{"on": true}']


@EACH
async def test_everybody_is_still_let_in_and_whoever_was_sent_away_is_not(release: Path, tmp_path: Path) -> None:
    clock = ManualClock(T0 + 60_000)
    bring_back(release, "state", tmp_path / "state.db")
    async with State.open(tmp_path / "state.db", KEY, clock=clock) as state:
        access, callers = (
            Access(state, KEY, clock, ParserRoutes.of(Settings())),
            Callers(state, KEY, clock, home="default"),
        )
        await access.refresh()
        await callers.refresh()
        for username, password in known(release)["logins"].values():
            credential = access.authenticate(username, password)
            assert credential is not None, username
            assert (credential.organization_id == "default") == (username != "dashboard")
            assert access.authenticate(username, password[:-1]) is None
        caller = callers.authenticate(known(release)["token"])
        assert caller is not None
        assert (caller.name, caller.organization_id, caller.role) == ("owner", "default", "owner")
        kitchen, revoked = await state.devices()
        assert (kitchen.device_id, kitchen.hardware_ids, kitchen.serial_number) == ("kitchen", ("aa:bb:cc",), "SN-1")
        assert (kitchen.metadata, kitchen.status, revoked.status) == ({"room": "kitchen"}, "active", "revoked")


@EACH
async def test_a_whole_gateway_goes_on(release: Path, tmp_path: Path) -> None:
    """Devices log in and store, the API knows the token, and a retained message is still there."""
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    for database in ("log", "state"):
        bring_back(release, database, data_dir / f"{database}.db")
    key = data_dir / "password.key"
    key.touch(0o600)
    key.write_bytes(KEY)
    username, password = known(release)["logins"]["device"]
    kitchen = DeviceCredential("default", "kitchen", username, password)
    hub = NewPassword("hub", "default", known(release)["logins"]["hub"][1])
    async with running_site(data_dir, kitchen=kitchen) as site:
        async with raw.RawClient.login(site) as board:
            board.send(raw.publish("neurobuild/sensors/kitchen/data", reading(boot_id="c", seq=1), qos=1))
            await board.expect(raw.puback(1))
        headers = {"Authorization": f"Bearer {known(release)['token']}"}
        async with site.http.get(site.url("/api/v1/readings"), headers=headers) as answer:
            found = await answer.json()
        assert len(found["readings"]) == READINGS + 1
        async with raw.RawClient.login(site, hub) as panel:
            panel.send(raw.subscribe("devices/+/status"))
            await panel.expect(b"\x90\x03\0\1\0", raw.publish("devices/kitchen/status", b"retained", retain=True))


@EACH
@BOTH
def test_a_death_in_the_middle_leaves_the_old_or_the_new(release: Path, database: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.storage.killed_migration", str(release), database, str(tmp_path)],
        cwd=ROOT, check=False, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    steps = STEPS[database]
    schemas = [made_by(steps[:version]) for version in range(len(steps) + 1)]
    left = sorted((path for path in tmp_path.glob("*.db") if path.stem.isdigit()), key=lambda path: int(path.stem))
    versions = []
    for path in left:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            assert schema(db) == schemas[version], path.name
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            migrate(db, steps, path)  # the next start goes on from there
            assert schema(db) == schemas[-1]
            with closing(sqlite3.connect(tmp_path / "released.db")) as released:
                assert all(counts(db)[name] >= rows for name, rows in counts(released).items() if name in counts(db))
        versions.append(version)
    assert len(left) > len(steps[-1])
    assert versions == sorted(versions)
    assert versions[0] < versions[-1] == len(steps)


@EACH
def test_its_configuration_is_still_understood(release: Path) -> None:
    """A setting that gets another name needs a word for those who have the old one in their file."""
    assert load(release / "neurogate.toml", {}).settings.version == 1
