"""The vault: what is in it opens with its key, in its place, and with nothing else; a lost key loses nothing."""

import asyncio
import os
import signal
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.model.errors import BadInput, ConfigError, NotFound
from gateway.model.secret import Secret
from gateway.storage.secrets import MOST_BYTES, Secrets
from gateway.storage.state import State
from gateway.storage.state_copy import copy_of
from gateway.storage.vault import SECRETS, Unreadable, Vault, key_id_of, seal, unseal
from gateway.storage.vault_keys import CREDENTIAL, Keyring, VaultKey, copy_keys, key_file

PASSWORD_KEY = bytes(range(32))
VALUES = {"api": "kitchen-table-4711", "json": '{"private_key": "-----BEGIN\\n…"}', "umlaut": "Schlüssel " * 100}


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[State]:
    async with State.open(folder / "state.db", PASSWORD_KEY, clock=ManualClock()) as state:
        yield state


async def filled(folder: Path) -> None:
    async with opened(folder) as state:
        for name, value in VALUES.items():
            await Secrets(state).put(name, Secret(value))


async def values(folder: Path) -> dict[str, str]:
    async with opened(folder) as state:
        secrets = Secrets(state)
        return {row.name: (await secrets.value(row.name)).get_secret_value() for row in await secrets.all()}


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def key_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("vault-*.key"))


@pytest.fixture(autouse=True)
def _no_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


class Credential:
    """What systemd hands to the service."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / CREDENTIAL
        folder.mkdir()

    def put(self, key: bytes) -> None:
        self._path.write_bytes(key)

    def remove(self) -> None:
        self._path.unlink()


@pytest.fixture
def credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Credential:
    folder = tmp_path / "credentials"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return Credential(folder)


async def test_what_goes_in_comes_out_and_is_nowhere_on_disk(tmp_path: Path) -> None:
    await filled(tmp_path)
    assert await values(tmp_path) == VALUES
    async with opened(tmp_path) as state:
        await Secrets(state).put("api", Secret("newer-4712"))
    assert (await values(tmp_path))["api"] == "newer-4712"
    (key,) = key_files(tmp_path)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    for name, content in contents(tmp_path).items():
        assert not any(value.encode() in content for value in (*VALUES.values(), "newer-4712")), name
        assert key.read_bytes() not in content or name == key.name


def test_equal_secrets_look_different() -> None:
    key, place = VaultKey.of(b"k" * 32, None), SECRETS.place("a")
    assert seal(key, place, Secret("same")) != seal(key, place, Secret("same"))


async def test_a_value_opens_only_in_its_own_row_and_whole(tmp_path: Path) -> None:
    await filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / "state.db")) as db:
        db.execute("UPDATE secrets SET value = (SELECT value FROM secrets WHERE name = 'json') WHERE name = 'api'")
        db.commit()
    async with opened(tmp_path) as state:
        with pytest.raises(Unreadable, match="moved here from elsewhere"):
            await Secrets(state).value("api")
        assert (await Secrets(state).value("json")).get_secret_value() == VALUES["json"]


def test_every_byte_of_a_value_counts() -> None:
    key, place = VaultKey.of(b"k" * 32, None), SECRETS.place("a")
    value = seal(key, place, Secret("text"))
    assert unseal({key.id: key}, place, value).get_secret_value() == "text"
    for index in range(len(value)):
        changed = bytearray(value)
        changed[index] ^= 1
        with pytest.raises(Unreadable):
            unseal({key.id: key, key_id_of(bytes(changed)): key}, place, bytes(changed))
        with pytest.raises(Unreadable):
            unseal({key.id: key, key_id_of(value[:index].ljust(9)): key}, place, value[:index])


async def test_a_lost_key_is_said_and_everything_is_there_when_it_comes_back(tmp_path: Path) -> None:
    await filled(tmp_path)
    (key,) = key_files(tmp_path)
    kept = key.rename(tmp_path / "elsewhere")
    async with opened(tmp_path) as state:
        assert {row.unreadable for row in await Secrets(state).all()} == {
            f"Its key {key.name} is not there. Put the key back, or set it again."
        }
        with pytest.raises(Unreadable, match=f"Its key {key.name} is not there"):
            await Secrets(state).value("api")
        (notice,) = await Vault(state).notices()
        assert notice.startswith(f"The vault's key {key} is not there: what it has encrypted (3) cannot be read")
        await Secrets(state).put("new", Secret("under a new key"))
        assert (await Vault(state).rotate()).left == 3
        (other,) = key_files(tmp_path)
        kept.rename(key)
        assert await Vault(state).notices() == []
    assert await values(tmp_path) == {**VALUES, "new": "under a new key"}
    assert len({key, other}) == 2


async def test_a_wrong_key_is_not_taken_for_the_right_one(tmp_path: Path) -> None:
    await filled(tmp_path)
    (key,) = key_files(tmp_path)
    right = key.read_bytes()
    key.write_bytes(b"w" * 32)
    async with opened(tmp_path) as state:
        (notice,) = await Vault(state).notices()
        assert notice == f"{key} is another key than its name says. Put the right one back: it is in each backup."
        with pytest.raises(Unreadable, match="another key than its name says"):
            await Secrets(state).value("api")
        with pytest.raises(ConfigError, match="another key than its name says"):
            await Secrets(state).put("api", Secret("x"))
        key.write_bytes(right)
        assert await Vault(state).notices() == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
async def test_a_key_that_others_may_read_is_refused_with_what_to_do(tmp_path: Path, mode: int) -> None:
    await filled(tmp_path)
    (key,) = key_files(tmp_path)
    key.chmod(mode)
    async with opened(tmp_path) as state:
        with pytest.raises(Unreadable) as caught:
            await Secrets(state).value("api")
        assert caught.value.hint == f"Run: chmod 600 {key}"
        (notice,) = await Vault(state).notices()  # and not that it is missing as well
        assert notice == f"Others may read {key} (mode {mode:04o}). Run: chmod 600 {key}"
        for change in (Secrets(state).put("api", Secret("x")), Vault(state).rotate()):
            with pytest.raises(ConfigError, match="Others may read"):
                await change
    key.chmod(0o600)
    assert await values(tmp_path) == VALUES
    assert key_files(tmp_path) == [key]


async def test_of_two_keys_in_trouble_each_is_said_what_is_wrong_with_it(tmp_path: Path) -> None:
    await filled(tmp_path)
    (key,) = key_files(tmp_path)
    key.unlink()
    other = key_file(tmp_path, "0" * 16)
    other.write_bytes(b"short")
    other.chmod(0o600)
    async with opened(tmp_path) as state:
        with pytest.raises(Unreadable, match=f"Its key {key.name} is not there"):
            await Secrets(state).value("api")
        unusable, missing = await Vault(state).notices()
        assert unusable.startswith(f"{other} has 5 bytes")
        assert missing.startswith(f"The vault's key {key} is not there")


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_what_is_no_key_is_not_used(tmp_path: Path, content: bytes, credential: Credential) -> None:
    key_file(tmp_path, "0" * 16).write_bytes(content)
    key_file(tmp_path, "0" * 16).chmod(0o600)
    credential.put(content)
    ring = Keyring.read(tmp_path)
    assert ring.keys == {}
    assert [f"{len(content)} bytes instead of 32" in str(error) for error in ring.unusable.values()] == [True, True]


async def test_a_rotation_leaves_one_new_key_and_nothing_that_the_old_one_opens(tmp_path: Path) -> None:
    await filled(tmp_path)
    (old,) = key_files(tmp_path)
    with closing(sqlite3.connect(tmp_path / "state.db")) as db:
        before = [value for (value,) in db.execute("SELECT value FROM secrets")]
    async with opened(tmp_path) as state:
        done = await Vault(state).rotate()
        assert (done.values, done.left) == (3, 0)
        assert await Vault(state).notices() == []
        (new,) = key_files(tmp_path)
        assert new != old
        for file in (tmp_path / "state.db", tmp_path / "state.db-wal", copy_of(tmp_path / "state.db")):
            content = file.read_bytes() if file.exists() else b""
            assert not any(value[-24:] in content for value in before), file
    assert await values(tmp_path) == VALUES


async def test_rotations_and_changes_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    await filled(tmp_path)
    async with opened(tmp_path) as state:
        puts = [Secrets(state).put(f"s{number}", Secret(f"value {number}")) for number in range(10)]
        await asyncio.gather(*(Vault(state).rotate() for _ in range(5)), *puts)
        assert await Vault(state).notices() == []
    assert len(await values(tmp_path)) == 13
    assert len(key_files(tmp_path)) == 1


async def test_the_systemd_credential_is_used_and_not_written_down(tmp_path: Path, credential: Credential) -> None:
    credential.put(b"c" * 32)
    await filled(tmp_path)
    assert key_files(tmp_path) == []
    assert await values(tmp_path) == VALUES
    async with opened(tmp_path) as state:
        with pytest.raises(BadInput) as caught:
            await Vault(state).rotate()
    kept = key_file(tmp_path, VaultKey.of(b"c" * 32, None).id)
    assert str(kept) in caught.value.hint
    kept.write_bytes(b"c" * 32)  # as the hint says
    kept.chmod(0o600)
    credential.put(b"d" * 32)
    async with opened(tmp_path) as state:
        assert (await Vault(state).rotate()).values == 3
    assert key_files(tmp_path) == []
    assert await values(tmp_path) == VALUES


async def test_a_file_can_become_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await filled(tmp_path)
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / CREDENTIAL).write_bytes(b"c" * 32)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    assert await values(tmp_path) == VALUES
    async with opened(tmp_path) as state:
        assert (await Vault(state).rotate()).values == 3
    assert key_files(tmp_path) == []
    assert await values(tmp_path) == VALUES


async def test_a_copy_of_the_state_has_its_keys_beside_it(tmp_path: Path, credential: Credential) -> None:
    credential.put(b"c" * 32)
    await filled(tmp_path)
    target = tmp_path / "copies"
    target.mkdir()
    async with opened(tmp_path) as state:
        await state.copy_to(target / "state.db")
    credential.remove()
    assert await values(target) == VALUES
    assert [stat.S_IMODE(key.stat().st_mode) for key in key_files(target)] == [0o600]
    copy_keys(target, target)  # what is there stays


async def test_a_damaged_state_comes_back_with_its_secrets(tmp_path: Path) -> None:
    await filled(tmp_path)
    async with opened(tmp_path) as state:
        await Vault(state).rotate()
    (tmp_path / "state.db").write_bytes(b"nonsense" * 1_000)
    async with State.open(tmp_path / "state.db", PASSWORD_KEY, clock=ManualClock(), tell=lambda _: None):
        pass
    assert await values(tmp_path) == VALUES


async def test_names_and_values_have_bounds(tmp_path: Path) -> None:
    async with opened(tmp_path) as state:
        secrets = Secrets(state)
        for name in ("", "a b", "ü", "-a", "a" * 65, "a}"):
            with pytest.raises(BadInput, match="cannot be the name of a secret"):
                await secrets.put(name, Secret("x"))
        for value in ("", "x" * (MOST_BYTES + 1), "ü" * MOST_BYTES):
            with pytest.raises(BadInput, match="A secret has 1 to 65,536 bytes"):
                await secrets.put("a", Secret(value))
        await secrets.put("a" * 64, Secret("x" * MOST_BYTES))
        with pytest.raises(NotFound, match="There is no secret b"):
            await secrets.value("b")
        with pytest.raises(NotFound, match="There is no secret b"):
            await secrets.remove("b")
        await secrets.remove("a" * 64)
        assert await secrets.all() == []


class Killer:
    """Kills the process at its n-th step: at each thing that Python asks of the system or of SQLite."""

    def __init__(self, at: int) -> None:
        self._left = at
        self.is_armed = False

    def audit(self, event: str, _: tuple[Any, ...]) -> None:
        if event.partition(".")[0] in ("open", "os", "shutil", "tempfile", "sqlite3"):
            self.step()

    def step(self, *_: object) -> None:
        if self.is_armed:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


async def rotate_and_be_killed(folder: Path, killer: Killer) -> None:
    async with opened(folder) as state:
        await state._db.set_trace_callback(killer.step)
        killer.is_armed = True
        await Vault(state).rotate()


def test_a_rotation_that_is_killed_at_any_step_leaves_every_secret_readable(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    asyncio.run(filled(first))
    seen = set()
    for at in range(1, 1_000):
        folder = tmp_path / str(at)
        folder.mkdir()
        for file in first.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
            (folder / file.name).chmod(0o600)
        if (child := os.fork()) == 0:
            killer = Killer(at)
            sys.addaudithook(killer.audit)
            try:
                asyncio.run(rotate_and_be_killed(folder, killer))
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        keys = key_files(folder)
        seen.add((len(keys), key_files(first)[0].name in [key.name for key in keys]))
        assert asyncio.run(values(folder)) == VALUES, f"killed at step {at}"
        if copy_of(folder / "state.db").exists():  # what comes back after damage, too
            (folder / "state.db").unlink()
            asyncio.run(restored(folder))
            assert asyncio.run(values(folder)) == VALUES, f"killed at step {at}, then restored from the copy"
        assert asyncio.run(rotated_again(folder)) == 1
        assert asyncio.run(values(folder)) == VALUES
        if os.WIFEXITED(status):
            break
    print(f"killed at {at - 1} steps; (keys, the old one among them): {sorted(seen)}")
    assert at > 20
    assert seen == {(1, True), (2, True), (1, False)}


async def restored(folder: Path) -> None:
    async with State.open(folder / "state.db", PASSWORD_KEY, clock=ManualClock(), tell=lambda _: None):
        pass


async def rotated_again(folder: Path) -> int:
    async with opened(folder) as state:
        assert (await Vault(state).rotate()).values == 3
    return len(key_files(folder))
