"""Where callbacks go is in the vault: on no disk and in no answer as it is, and lost with the vault's key alone."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from gateway.storage.state_copy import copy_of
from tests.site import running_site, until
from tests.storage.test_vault import key_files
from tests.web.test_mqtt_broker import API, STATUS, Api, receiving, running

TOKEN = "planted-9f3a61c2-token"


async def listed(api: Api) -> dict[str, Any]:
    _, answer = await api.ask("GET", f"{API}/subscriptions")
    (one,) = answer["subscriptions"]
    return dict(one)


def files_with_token(folder: Path) -> list[str]:
    return [file.name for file in sorted(folder.iterdir()) if file.is_file() and TOKEN.encode() in file.read_bytes()]


async def test_an_address_is_on_no_disk_and_in_no_answer_and_outlives_restarts(tmp_path: Path) -> None:
    async with receiving() as receiver:
        async with running(tmp_path) as api:
            made = await api.subscribe("devices/+/status", callback_url=f"{receiver.url}?token={TOKEN}")
            assert made["callback_url"] == f"{receiver.url}?token=********"
            assert TOKEN not in str(await listed(api))
            assert files_with_token(tmp_path) == []
            kitchen = api.site.kitchen
        (key,) = key_files(tmp_path)
        kept = key.rename(tmp_path / "kept")
        async with running_site(tmp_path, kitchen=kitchen) as site:
            lost = Api(site, api.token)
            await lost.publish(STATUS, "while it is lost", qos=1)
            callback = (await listed(lost))["callback"]
            assert callback["state"] == "error"
            assert callback["last_error"].startswith(f"Its key {key.name} is not there.")
        kept.rename(key)
        async with running_site(tmp_path, kitchen=kitchen):
            await until(lambda: len(receiver.messages()) == 1)
            assert receiver.messages()[0]["payload"] == "while it is lost"


async def test_what_an_earlier_release_has_left_readable_is_encrypted(tmp_path: Path) -> None:
    async with receiving() as receiver:
        async with running(tmp_path) as api:
            await api.subscribe("devices/+/status", callback_url=f"{receiver.url}?token={TOKEN}")
            kitchen = api.site.kitchen
        with closing(sqlite3.connect(tmp_path / "state.db")) as db:
            db.execute("UPDATE mqtt_subscriptions SET callback_url = ?", (f"{receiver.url}?token={TOKEN}",))
            db.commit()
        copy_of(tmp_path / "state.db").write_bytes((tmp_path / "state.db").read_bytes())
        assert files_with_token(tmp_path) == ["state.db", "state.db.copy"]
        async with running_site(tmp_path, kitchen=kitchen) as site:
            assert files_with_token(tmp_path) == []
            await Api(site, api.token).publish(STATUS, "x", qos=1)
            await until(lambda: len(receiver.messages()) == 1)
