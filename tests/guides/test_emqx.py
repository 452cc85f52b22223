"""What the guide sends to try the way, before EMQX does, is stored, and answered as the guide says."""

import json
import re
import shlex
from pathlib import Path

from tests.guides.pages import blocks, text_of
from tests.web.api import running_api


async def test_the_guides_request_is_stored_and_answered_as_it_says(tmp_path: Path) -> None:
    [command] = [block for block in blocks("emqx.md", "sh") if block.startswith("curl ")]
    _, url, _, header, _, body = shlex.split(command)
    [promised] = re.findall(r"^answers `(.*?)`", text_of("emqx.md"), re.MULTILINE)
    async with running_api(tmp_path, role="device") as api:
        address = api.site.url(url.removeprefix("http://192.0.2.10:8080"))
        name, _, value = header.replace("$TOKEN", api.token).partition(": ")
        headers = {name: value, "Content-Type": "application/json"}
        async with api.site.http.post(address, data=body.encode(), headers=headers) as response:
            assert (response.status, await response.json()) == (200, json.loads(promised))
        (stored,) = await api.site.log.read(0, limit=5)
    assert (stored.device_id, stored.body["sensors"]) == ("attic", {"pir": {"motion_detected": True}})
