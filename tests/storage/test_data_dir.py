"""One gateway per data directory, and keys that only their owner reads."""

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.model.errors import ConfigError, DataDirLocked
from gateway.storage.data_dir import KEY_BYTES, DataDir, load_or_create_key

NOBODY = 65_534
HOLDER = """
import sys
from pathlib import Path
from gateway.storage.data_dir import DataDir
with DataDir(Path(sys.argv[1])).lock():
    print("locked", flush=True)
    sys.stdin.read()
"""


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_is_its_owners_alone(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path / "a/b").ensure()
    assert mode_of(data_dir.path) == 0o700
    assert DataDir(data_dir.path).ensure().log_db == tmp_path / "a/b/log.db"
    assert data_dir.state_db == tmp_path / "a/b/state.db"


def test_a_folder_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as raised:
        DataDir(tmp_path / "file/data").ensure()
    assert str(raised.value) == (
        f"The data directory {tmp_path}/file/data cannot be created (Not a directory)."
        " Create it for the gateway's user, or set gateway.data_dir."
    )


def test_root_leaves_nothing_in_the_folder_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        os.chown(tmp_path, NOBODY, NOBODY)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
    data_dir = DataDir(tmp_path)
    for attempt in (data_dir.ensure, data_dir.lock().__enter__):
        with pytest.raises(ConfigError) as raised:
            attempt()
        assert raised.value.message.startswith(f"{tmp_path} is the user {tmp_path.owner()}'s: ")
        assert raised.value.hint == f"Run it as that user: sudo -u {tmp_path.owner()} neurogate …"
    assert list(tmp_path.iterdir()) == []


def test_a_second_gateway_is_told_who_was_first(tmp_path: Path) -> None:
    with DataDir(tmp_path).lock(), pytest.raises(DataDirLocked) as raised, DataDir(tmp_path).lock():
        pass
    assert str(raised.value) == (
        f"Another gateway (pid {os.getpid()}) uses {tmp_path}."
        " Stop it, or give this one its own folder with gateway.data_dir."
    )


def test_a_failed_attempt_leaves_the_lock_with_its_holder(tmp_path: Path) -> None:
    with DataDir(tmp_path).lock() as held:
        for _ in range(2):
            with pytest.raises(DataDirLocked), DataDir(tmp_path).lock():
                pass
        assert held.lock_file.read_text() == f"{os.getpid()}\n"
    with DataDir(tmp_path).lock():
        assert mode_of(held.lock_file) == 0o600


def test_a_killed_gateway_leaves_no_lock_behind(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(DataDirLocked, match=rf"\(pid {holder.pid}\)"), DataDir(tmp_path).lock():
            pass
        holder.kill()
        holder.wait(10)
        with DataDir(tmp_path).lock():
            pass


def test_a_key_is_made_once_and_read_ever_after(tmp_path: Path) -> None:
    path = DataDir(tmp_path).password_key
    key = load_or_create_key(path)
    assert len(key) == KEY_BYTES
    assert mode_of(path) == 0o600
    assert load_or_create_key(path) == key
    assert [entry.name for entry in tmp_path.iterdir()] == ["password.key"]


def test_two_who_make_the_key_at_once_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        keys = list(pool.map(load_or_create_key, [tmp_path / "password.key"] * 64))
    assert len(set(keys)) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "password.key"
    load_or_create_key(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError) as raised:
        load_or_create_key(path)
    assert str(raised.value) == f"Others may read {path} (mode 0640). Run: chmod 600 {path}"


@pytest.mark.parametrize("size", [0, 31, 33, 100])
def test_a_key_of_another_size_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "password.key"
    path.write_bytes(b"x" * size)
    path.chmod(0o600)
    with pytest.raises(ConfigError) as raised:
        load_or_create_key(path)
    assert raised.value.message == f"{path} has {size} bytes instead of 32."
