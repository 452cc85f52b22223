"""A sensor type that the gateway has never seen is stored and forwarded as it came, whatever way it comes in by."""

import json
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.operations.credentials import add_credential
from tests.broker.raw import RawClient, puback, publish
from tests.site import reading, running_site, until

STRANGE = {"co2": {"ppm": 415, "calibrated": True}, "Ü-Sonde 7": {"trace": [1, 2.5, None], "deep": {"x": "y"}}}
ROUTES: list[dict[str, Any]] = [
    {
        "topic": "own/+",
        "parser": "custom",
        "mapping": {"sensors": {"radon": {"bq_m3": "r"}}},
    },
    {"topic": "packs/#", "parser": "senml"},
    {"topic": "$sys/version/+/devices/#", "parser": "vmark"},
]


async def test_a_sensor_nobody_has_heard_of_reaches_the_destination(tmp_path: Path) -> None:
    received: list[dict[str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        received.extend((await request.json())["readings"])
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    async with TestServer(app) as server:
        webhook = {"type": "webhook", "name": "all", "url": str(server.make_url("/"))}
        async with running_site(tmp_path, integrations=[webhook], ingest={"routes": ROUTES}) as site:
            hub = await site.command(add_credential, name="hub", organization_id="default")
            messages = [
                ("devices/attic/telemetry", reading("attic", sensors=STRANGE)),
                ("packs/x", b'[{"bn":"attic:","n":"pollen","u":"1/m3","v":30}]'),
                ("$sys/version/1/devices/attic/properties_report", b'{"properties":{"soil":{"moisture":7}}}'),
            ]
            async with RawClient.login(site, hub) as client:
                client.send(*(publish(topic, data, qos=1, packet_id=9) for topic, data in messages))
                await client.expect(*[puback(9)] * 3)
            async with RawClient.login(site) as client:
                client.send(publish("own/x", b'{"r": 80}', qos=1))
                await client.expect(puback(1))
            await until(lambda: len(received) == 4, "the delivery")
    assert [one["sensors"] for one in received] == [
        STRANGE,
        {"pollen": {"value": 30, "unit": "1/m3"}},
        {"soil": {"moisture": 7}},
        {"radon": {"bq_m3": 80}},
    ]
    assert [one["device_id"] for one in received] == ["attic", "attic", "attic", "kitchen"]
    assert json.dumps(received[0]["sensors"]) == json.dumps(STRANGE)
