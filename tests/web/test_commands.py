"""`devices/{id}/commands` as a program or a person uses it, with mosquitto's own clients as the board."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import command_line
from tests.broker.raw import RawClient, publish, subscribe
from tests.site import Site, until
from tests.web.api import Asker, asker, running_api

PATH = "/api/v1/devices/kitchen/commands"
TOPICS = "org_default/devices/kitchen/commands"


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Asker]:
    async with running_api(tmp_path, "admin", http={"request_timeout_s": 2.0}) as admin:
        yield admin


async def run(site: Site, *command: str) -> asyncio.subprocess.Process:
    who = ("-u", site.kitchen.username, "-P", site.kitchen.password)
    at = ("-h", "127.0.0.1", "-p", str(site.mqtt_port), "-q", "1")
    return await asyncio.create_subprocess_exec(command[0], *at, *who, *command[1:], stdout=asyncio.subprocess.PIPE)


@asynccontextmanager
async def board(site: Site, *answers: dict[str, object]) -> AsyncIterator[list[dict[str, Any]]]:
    """A board that says this to every command; yields the commands it has heard."""
    heard: list[dict[str, Any]] = []

    async def live(client: RawClient) -> None:
        while True:
            (kind,) = await client.reader.readexactly(1)
            length, shift = 0, 0
            while (more := (await client.reader.readexactly(1))[0]) & 0x80:
                length |= (more & 0x7F) << shift
                shift += 7
            body = await client.reader.readexactly(length | more << shift)
            if kind & 0xF0 == 0x30:
                end = 2 + int.from_bytes(body[:2], "big")
                heard.append(json.loads(body[end:]))
                for answer in answers:
                    client.send(publish(body[2:end].decode() + "/ack", json.dumps(answer).encode()))

    async with RawClient.login(site) as client:
        client.send(subscribe(f"{TOPICS}/+"))
        await client.packet()
        living = asyncio.create_task(live(client))
        try:
            yield heard
        finally:
            living.cancel()


async def test_mosquitto_as_the_board(admin: Asker) -> None:
    listening = await run(admin.site, "mosquitto_sub", "-t", f"{TOPICS}/+", "-F", "%t %p", "-C", "1")
    try:
        status, sent = await admin.post(PATH, {"method": "identify", "params": {"seconds": 5}})
        assert (status, sent["state"], sent["sent_by"]) == (202, "queued", "token:default-admin")
        assert listening.stdout is not None
        async with asyncio.timeout(10):
            topic, payload = (await listening.stdout.readline()).decode().split(" ", 1)
        assert topic == f"{TOPICS}/{sent['id']}"
        deadline_s = json.loads(payload).pop("deadline")
        assert json.loads(payload) == {"method": "identify", "params": {"seconds": 5}, "deadline": deadline_s}
        assert deadline_s == admin.site.clock.now // 1000 + 30
        for answer in ('{"state":"executing"}', '{"state":"successful","result":"lit"}'):
            saying = await run(admin.site, "mosquitto_pub", "-t", f"{topic}/ack", "-m", answer)
            assert await saying.wait() == 0
        status, done = await admin.get(f"{PATH}/{sent['id']}")
        assert (status, done["state"], done["result"]) == (200, "successful", "lit")
        assert done["finished_at"] == done["sent_at"] == done["created_at"]  # the clock stands still
    finally:
        if listening.returncode is None:
            listening.kill()
        await listening.wait()


async def test_waiting_answers_with_the_result(admin: Asker) -> None:
    async with board(admin.site, {"state": "executing"}, {"state": "failed", "result": "too hot"}) as heard:
        status, done = await admin.post(PATH, {"method": "heat", "wait": True})
        assert (status, done["state"], done["result"]) == (200, "failed", "too hot")
        assert heard == [{"method": "heat", "params": {}, "deadline": admin.site.clock.now // 1000 + 30}]


async def test_waiting_ends_with_the_deadline(admin: Asker) -> None:
    asking = asyncio.create_task(admin.post(PATH, {"method": "heat", "wait": True, "id": "mine"}))
    commands = admin.site.gateway._running.site.commands
    await until(lambda: bool(commands._pending), "a command waits")
    admin.site.clock.advance(30_000)
    commands.look_again()
    status, done = await asking
    assert (status, done["state"], done["result"]) == (200, "expired", None)


async def test_waiting_ends_before_a_request_may_take_no_longer(admin: Asker) -> None:
    status, sent = await admin.post(PATH, {"method": "heat", "wait": True})
    assert (status, sent["state"]) == (202, "queued")


async def test_the_same_id_is_the_same_command(admin: Asker) -> None:
    asked = {"method": "heat", "params": {"to": 21}, "id": "mine"}
    first, again = [await admin.post(PATH, asked) for _ in range(2)]
    assert first == again
    assert first[0] == 202
    status, refused = await admin.post(PATH, asked | {"params": {"to": 22}})
    assert (status, refused["error"]["code"]) == (409, "conflict")


async def test_commands_are_listed_the_newest_first(admin: Asker) -> None:
    async with board(admin.site, {"state": "successful"}):
        for name in ("a", "b"):
            await admin.post(PATH, {"method": "heat", "id": name, "wait": True})
    await admin.post(PATH, {"method": "heat", "id": "c"})
    _, page = await admin.get(PATH, limit=2)
    assert [one["id"] for one in page["commands"]] == ["c", "b"]
    _, rest = await admin.get(PATH, limit=2, cursor=page["next_cursor"])
    assert ([one["id"] for one in rest["commands"]], rest["next_cursor"]) == (["a"], None)
    _, queued = await admin.get(PATH, state="queued")
    assert [one["id"] for one in queued["commands"]] == ["c"]


async def test_what_is_not_there_or_no_command_says_so(admin: Asker) -> None:
    assert (await admin.post("/api/v1/devices/nobody/commands", {"method": "heat"}))[0] == 404
    assert (await admin.get("/api/v1/devices/nobody/commands"))[0] == 404
    assert (await admin.get(f"{PATH}/nothing"))[0] == 404
    for wrong in ({}, {"method": "a b"}, {"method": "heat", "id": "a/b"}, {"method": "heat", "timeout_s": 0}):
        assert (await admin.post(PATH, wrong))[0] == 400, wrong
    await admin.ask("DELETE", "/api/v1/devices/kitchen", {})
    status, refused = await admin.post(PATH, {"method": "heat"})
    assert (status, refused["error"]["code"]) == (409, "conflict")


async def test_a_member_sees_and_sends_nothing(admin: Asker) -> None:
    member = await asker(admin.site, "member")
    status, refused = await member.post(PATH, {"method": "heat"})
    assert (status, refused["error"]["code"]) == (403, "forbidden")
    assert (await member.get(PATH))[1]["commands"] == []


async def test_the_command_line_sends_waits_and_lists(admin: Asker, tmp_path: Path) -> None:
    config = tmp_path / "neurogate.toml"
    config.write_text(f'version = 1\n[gateway]\ndata_dir = "{admin.site.settings.gateway.data_dir}"\n')

    async def neurogate(*arguments: str) -> tuple[int, str]:
        words = ["device", *arguments, "--config", str(config)]
        done = await asyncio.to_thread(CliRunner().invoke, command_line(["device"]), words)
        return done.exit_code, done.output

    async with board(admin.site, {"state": "executing"}, {"state": "successful", "result": [1]}) as heard:
        asked = ("command", "kitchen", "heat", "--set", "to=21", "--set", "room=hall", "--wait", "--id", "mine")
        assert await neurogate(*asked) == (0, "mine  successful  [1]\n")
        assert heard[0]["params"] == {"to": 21, "room": "hall"}
    code, said = await neurogate("command", "kitchen", "heat", "--json")
    assert (code, json.loads(said)["state"]) == (0, "queued")
    code, said = await neurogate("commands", "kitchen", "--json")
    assert [(one["method"], one["state"]) for one in json.loads(said)] == [("heat", "queued"), ("heat", "successful")]
    assert 'room="hall"' in (await neurogate("commands", "kitchen"))[1]
