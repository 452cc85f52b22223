"""A destination whose secret cannot be read stops no other, keeps its place, and goes on when the secret is back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.config import load
from gateway.golioth_doors import _doors
from gateway.model.errors import ConfigError
from gateway.operations.secrets import remove_secret, rotate_vault, set_secret
from tests.site import Site, reading, running_site, until

SIGNED = "kitchen-table-and-six-chairs"
TABLES = """
[[integrations]]
type = "webhook"
name = "open"
url = "{url}open"
[[integrations]]
type = "webhook"
name = "signed"
url = "{url}${{vault:PATH}}"
secret = ["${{vault:SIGN}}"]
[integrations.custom_headers]
X-Key = "Key ${{vault:SIGN}}!"
"""


class Receiver:
    """Two addresses, and what came to them."""

    def __init__(self) -> None:
        self.came: dict[str, list[str]] = {"open": [], "signed": []}
        self.keys: set[str | None] = set()
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        ids = [one["device_id"] for one in (await request.json())["readings"]]
        self.came[request.match_info["name"]] += ids
        self.keys.add(request.headers.get("X-Key"))
        return web.Response()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{name}", receiver.take)
    async with TestServer(app) as server:
        receiver.url = str(server.make_url("/"))
        yield receiver


@asynccontextmanager
async def site(folder: Path, receiver: Receiver, *, first: Site | None = None) -> AsyncIterator[Site]:
    path = folder / "neurogate.toml"
    path.write_text(TABLES.format(url=receiver.url))
    tables: Any = load(path, {}).settings.integrations
    kitchen = None if first is None else first.kitchen
    async with running_site(folder / "data", integrations=tables, kitchen=kitchen) as running:
        yield running


async def send(site: Site, device_id: str = "kitchen") -> None:
    key = {"x-api-key": site.kitchen.password, "content-type": "application/json"}
    async with site.http.post(site.url("/api/v1/sensor-data"), data=reading(device_id), headers=key) as answer:
        assert answer.status == 202


async def ready(site: Site) -> dict[str, Any]:
    async with site.http.get(site.url("/ready")) as answer:
        assert answer.status == 200
        return dict(await answer.json())


async def fill(site: Site) -> None:
    await site.command(set_secret, name="SIGN", value=SIGNED)
    await site.command(set_secret, name="PATH", value="signed")


async def test_a_destination_waits_for_its_secret_and_then_gets_everything(tmp_path: Path, receiver: Receiver) -> None:
    async with site(tmp_path, receiver) as first:
        (notice,) = (await ready(first))["notices"]
        assert notice == (
            "The integration signed is not started (restart the gateway when this is mended): There is no secret PATH."
            " Put it in with: neurogate secrets set PATH"
        )
        assert await first.metric('neurogate_delivery_state{destination="signed",state="stopped"}') == 1
        await send(first)
        await until(lambda: receiver.came["open"] == ["kitchen"], "the other's delivery")
        assert receiver.came["signed"] == []
        await fill(first)
    async with site(tmp_path, receiver, first=first) as second:
        assert (await ready(second))["notices"] == []
        await until(lambda: receiver.came["signed"] == ["kitchen"], "what it has waited for")
        assert f"Key {SIGNED}!" in receiver.keys


async def test_a_lost_key_stops_only_who_needs_it_until_it_is_back(tmp_path: Path, receiver: Receiver) -> None:
    async with site(tmp_path, receiver) as first:
        await fill(first)
    (key,) = (tmp_path / "data").glob("vault-*.key")
    kept = key.rename(tmp_path / "kept")
    async with site(tmp_path, receiver, first=first) as second:
        lost, stopped = (await ready(second))["notices"]
        assert lost.startswith(f"The vault's key {key} is not there: what it has encrypted (2) cannot be read")
        assert stopped.startswith("The integration signed is not started (")
        assert stopped.endswith(f": Its key {key.name} is not there. Put the key back, or set it again.")
        await send(second)
        await until(lambda: receiver.came["open"] == ["kitchen"], "the other's delivery")
    kept.rename(key)
    async with site(tmp_path, receiver, first=first) as third:
        assert (await ready(third))["notices"] == []
        await third.command(rotate_vault)
        await until(lambda: receiver.came["signed"] == ["kitchen"], "what it has waited for")
    async with site(tmp_path, receiver, first=first) as fourth:
        await send(fourth)
        await until(lambda: len(receiver.came["signed"]) == 2, "the delivery after a rotation")
        await fourth.command(remove_secret, name="PATH")
        await send(fourth)
        await until(lambda: len(receiver.came["signed"]) == 3, "it runs until the restart")


async def test_a_secret_that_is_no_good_is_said_without_itself(
    tmp_path: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with site(tmp_path, receiver) as first:
        await first.command(set_secret, name="SIGN", value="too-short-9f3a")
        await first.command(set_secret, name="PATH", value="signed")
    async with site(tmp_path, receiver, first=first) as second:
        (notice,) = (await ready(second))["notices"]
        assert (
            "): integrations[signed].secret in ${vault:SIGN}: The secret has 14 bytes; 24 to 64 are needed." in notice
        )
        assert "too-short" not in notice + caplog.text


async def test_a_table_that_is_wrong_whatever_the_secret_is_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "neurogate.toml"
    path.write_text('[[integrations]]\ntype = "webhook"\nname = "x"\nsercet = "${vault:A}"\nurl = "${vault:B}"\n')
    tables: Any = load(path, {}).settings.integrations
    with pytest.raises(ConfigError, match=r"Unknown key integrations\[x\].sercet"):
        async with running_site(tmp_path / "data", integrations=tables):
            pass


BRING: list[dict[str, Any]] = [
    {"type": "golioth", "name": "golioth", "webhook_secret": "planted-" + "s" * 32},
    {"type": "mqtt_external", "name": "plant", "brokerUrl": "127.0.0.1", "port": 1, "topics": "plant/+"},
]


@pytest.mark.parametrize(("organizations", "whose"), [([], "default"), (["acme"], "acme")])
async def test_p8_whose_readings_come_in_is_the_same_whichever_way(
    tmp_path: Path, organizations: list[str], whose: str
) -> None:
    async with running_site(tmp_path, integrations=[{**one, "organizations": organizations} for one in BRING]) as site:
        integrations = site.gateway._running.integrations
        heard = [one.inbound._reader._organization_id for one in integrations.running() if one.inbound is not None]
        assert [door.organization_id for door in _doors(integrations, "default")] == [whose]
        assert heard == [whose]


@pytest.mark.parametrize("table", BRING)
async def test_p8_what_comes_in_for_several_is_refused(tmp_path: Path, table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="belongs to one organisation: name no more than one"):
        async with running_site(tmp_path, integrations=[table | {"organizations": ["acme", "other"]}]):
            pass
