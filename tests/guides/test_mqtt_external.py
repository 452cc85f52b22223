"""By the guide's rights and settings a customer's mosquitto is heard, and a V-Mark hub gets its reply."""

import asyncio
import json
import shlex
import tomllib
from pathlib import Path

import aiomqtt

from tests.guides.pages import blocks, replaced
from tests.mosquitto import WAIT_S, mosquitto
from tests.site import running_site, until

PASSWORD = "planted-of-the-plant"
REPORT = "$sys/version/1.0/devices/hub1/properties_report"
RIGHTS_OF_DEVICES = "user attic\ntopic readwrite devices/#\ntopic readwrite $sys/#\n"


async def test_a_customers_mosquitto_is_heard_and_its_hub_gets_its_reply(tmp_path: Path) -> None:
    [rights], [keeps], [toml] = (blocks("mqtt-external.md", language) for language in ("acl", "conf", "toml"))
    [publish] = [shlex.split(block) for block in blocks("mqtt-external.md", "sh") if block.startswith("mosquitto_pub ")]
    (tmp_path / "broker").mkdir()
    users = {"neurogate": PASSWORD, "attic": PASSWORD}
    with mosquitto(tmp_path / "broker", users=users, rights=rights + RIGHTS_OF_DEVICES, more=keeps) as broker:
        port = broker.ports["mqtt"]
        where = {"192.0.2.20": f"127.0.0.1:{port}", "${vault:PLANT_PASSWORD}": PASSWORD}
        tables = tomllib.loads(replaced(toml, where))["integrations"]
        async with (
            running_site(tmp_path / "data", integrations=tables) as site,
            aiomqtt.Client("127.0.0.1", port, username="attic", password=PASSWORD) as devices,
            asyncio.timeout(WAIT_S),
        ):
            receiving = site.gateway._running.integrations.receiving
            await until(lambda: {one.state for one in receiving()} == {"receiving"}, "both listen", patience_s=WAIT_S)
            await devices.subscribe(f"{REPORT}_reply", qos=1)
            command = [{"192.0.2.20": "127.0.0.1", "PASSWORD": PASSWORD}.get(word, word) for word in publish]
            process = await asyncio.create_subprocess_exec(*command, "-p", str(port))
            assert await process.wait() == 0
            report = {"devices": [{"hardware_ids": ["AA:01"], "properties": {"t": 21}}]}
            await devices.publish(REPORT, json.dumps(report), qos=1)
            answer = await anext(devices.messages)
            stored = await site.stored(2)
    assert sorted(one.device_id for one in stored) == ["AA:01", "attic"]
    assert answer.payload == b'{"result":0}'
