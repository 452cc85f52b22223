"""What the guide sends is what ThingsBoard's gateway API takes, from the one token that may, on the one topic.

https://thingsboard.io/docs/reference/gateway-api/telemetry/ has it: by device, arrays of `ts` and `values`.
"""

import asyncio
import json
from pathlib import Path

import aiomqtt

from cloud_sync.contract import Ok
from tests.cloud_sync.integrations.certificates import Authority
from tests.cloud_sync.samples import NOW_MS, batch_of, sent
from tests.firmware.board_process import mosquitto
from tests.guides.pages import blocks, integration, replaced

TOKEN = "planted-of-a-gateway"
RIGHTS = f"user {TOKEN}\ntopic write v1/gateway/telemetry\nuser thingsboard\ntopic read #\n"


async def test_thingsboard_gets_each_devices_telemetry_as_it_documents_it(tmp_path: Path) -> None:
    [toml] = blocks("thingsboard.md", "toml")
    given = batch_of("esp32-kitchen", "esp32-hall")
    authority = Authority(tmp_path)
    for name, text in zip(("server.crt", "server.key"), authority.identity("localhost"), strict=True):
        (tmp_path / name).write_text(text)
    (tmp_path / "acl").write_text(RIGHTS)
    tls = (tmp_path / "server.crt", tmp_path / "server.key")
    with mosquitto(tmp_path, "allow_anonymous true", f"acl_file {tmp_path}/acl", tls=tls) as port:
        settings = replaced(toml, {"thingsboard.example.com": f"localhost:{port}"})
        settings += f'ca = """{authority.file.read_text()}"""\n'
        there = aiomqtt.Client(
            "localhost", port, username="thingsboard", tls_params=aiomqtt.TLSParameters(str(authority.file))
        )
        async with there, integration(settings, tmp_path, {"THINGSBOARD_TOKEN": TOKEN}) as it, asyncio.timeout(20):
            await there.subscribe("#", qos=1)
            assert await sent(it, given) == Ok()
            heard = [await anext(there.messages) for _ in given.readings]
    assert {str(one.topic) for one in heard} == {"v1/gateway/telemetry"}
    payloads = [json.loads(bytes(one.payload)) for one in heard]
    values = {"pir.motion_detected": True}
    assert payloads == [{name: [{"ts": NOW_MS, "values": values}]} for name in ("esp32-kitchen", "esp32-hall")]
    [shown] = blocks("thingsboard.md", "json")
    assert json.loads(shown) == payloads[0]
