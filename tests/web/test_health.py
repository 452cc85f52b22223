"""/health, /ready and /metrics."""

import re
from pathlib import Path
from typing import Any

from gateway.operations.integrations import add_integration
from tests.site import FailingDisk, Site, reading, running_site

HOUSE = Path(__file__).parent.parent.parent
PAGES = (HOUSE / "gateway" / "metrics.md", HOUSE / "README.md")


async def test_a_process_that_turns_is_healthy_and_ready_and_asks_no_token(site: Site) -> None:
    async with site.http.get(site.url("/health")) as response:
        said = await response.json()
        assert (response.status, said["status"]) == (200, "ok")
    async with site.http.get(site.url("/ready")) as response:
        body = await response.json()
        assert (response.status, body["status"], body["problems"]) == (200, "ready", [])


async def test_p8_ready_says_an_organisations_integration_by_its_id_and_one_of_the_file_by_its_name(
    tmp_path: Path,
) -> None:
    cloud: dict[str, Any] = {"type": "webhook", "name": "cloud", "url": "http://127.0.0.1:9/x"}
    plant: dict[str, Any] = {"broker_url": "127.0.0.1", "port": 9, "topics": "a", "topic": "b"}
    async with running_site(tmp_path, integrations=[cloud]) as site:
        row = await site.command(
            add_integration, organization_id="default", integration_type="mqtt", name="Our Plans", settings=plant
        )
        async with site.http.get(site.url("/ready")) as response:
            body = await response.json()
    assert {one["name"]: one["label"] for one in body["destinations"]} == {"cloud": "cloud", row.id: row.id}
    assert [one["label"] for one in body["receiving"]] == [row.id]
    assert "Our Plans" not in str(body)


async def test_p10_it_tells_the_time_and_whether_its_own_clock_is_right(site: Site) -> None:
    for synced in (True, False):
        site.clock.synced = synced
        async with site.http.get(site.url("/health")) as response:
            told = {"status": "ok", "time_ms": site.clock.now_ms(), "time_is_right": synced}
            assert await response.json() == told


async def test_a_failing_disk_is_a_reason_not_to_be_ready_until_a_commit_succeeds(
    site: Site, disk: FailingDisk
) -> None:
    headers = {"x-api-key": site.kitchen.password, "Content-Type": "application/json"}
    for failing, status in ((True, 503), (False, 200)):
        disk.failing = failing
        async with site.http.post(site.url("/api/v1/sensor-data"), data=reading(), headers=headers):
            pass
        async with site.http.get(site.url("/ready")) as response:
            assert response.status == status
            assert ("disk I/O error" in str(await response.json())) is failing


async def test_every_documented_metric_is_there(site: Site) -> None:
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    documented = set(re.findall(r"^\| `((?:neurogate_|sensor_data_|active_|queue_)\w+)", text, re.MULTILINE))
    assert len(documented) > 10
    async with site.http.get(site.url("/metrics")) as response:
        assert response.headers["Content-Type"].startswith("text/plain")
        families = set(re.findall(r"^# TYPE (\w+)", await response.text(), re.MULTILINE))
    assert documented <= families
