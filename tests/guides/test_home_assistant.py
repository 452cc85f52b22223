"""By the guide's settings a Home Assistant with a broker of its own, a real mosquitto, shows the board."""

import asyncio
from pathlib import Path

import aiomqtt

from cloud_sync.contract import Ok
from gateway.model.home_assistant.topics import object_id
from tests.cloud_sync.samples import batch, sent
from tests.guides.pages import blocks, integration, replaced
from tests.home_assistant import HomeAssistant, listen, showing
from tests.mosquitto import mosquitto

PASSWORD = "planted-of-home-assistant"
RIGHTS = (
    "user neurogate\ntopic write homeassistant/#\ntopic write neurogate/#\ntopic read homeassistant/status\n"
    "user homeassistant\ntopic readwrite #\n"
)
"""What the guide says that the gateway's user needs, and no more."""


async def test_a_home_assistant_with_a_broker_of_its_own_shows_the_board(tmp_path: Path) -> None:
    [toml] = [block for block in blocks("home-assistant.md", "toml") if "[[integrations]]" in block]
    given, device = batch(2), object_id("site-1", "default", "esp32-kitchen")
    (tmp_path / "broker").mkdir()
    users = {"neurogate": PASSWORD, "homeassistant": PASSWORD}
    with mosquitto(tmp_path / "broker", users=users, rights=RIGHTS) as broker:
        port = broker.ports["mqtt"]
        where = {"homeassistant.local": f"127.0.0.1:{port}", "${vault:MQTT_PASSWORD}": PASSWORD}
        shown = HomeAssistant()
        async with (
            aiomqtt.Client("127.0.0.1", port, username="homeassistant", password=PASSWORD) as there,
            integration(replaced(toml, where), tmp_path) as it,
        ):
            await there.subscribe("homeassistant/+/+/config")
            listening = asyncio.create_task(listen(there, shown))
            assert await sent(it, given) == Ok()
            await showing(shown, device, "pir-motion_detected", "on")
            await showing(shown, device, "connectivity", "on")
            listening.cancel()
