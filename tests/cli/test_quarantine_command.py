"""`neurogate buffer quarantine`."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import command_line
from gateway.model.reading import NewQuarantine
from gateway.storage import newest_first
from gateway.storage.data_dir import DataDir
from tests.cloud_sync.samples import NOW_MS
from tests.cloud_sync.site import open_site


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration, and a log with five messages in quarantine."""

    async def fill() -> None:
        async with open_site(DataDir(tmp_path).ensure().log_db) as site:
            for number, device_id in enumerate(("kitchen", "", "kitchen", "attic", "kitchen")):
                reason, payload = f"number {number}\x1b[31m", b"\xff" if number == 4 else b"no reading"
                await site.log.append([NewQuarantine("acme", device_id, "http", "c", reason, NOW_MS, payload)])

    asyncio.run(fill())
    file = tmp_path / "neurogate.toml"
    file.write_text(f'version = 1\n[gateway]\ndata_dir = "{tmp_path}"\n')
    return file


def quarantine(config: Path, *words: str) -> str:
    done = CliRunner().invoke(command_line(), ["buffer", "quarantine", *words, "-c", str(config)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_it_is_listed_the_newest_first_with_the_reason(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest_first, "_LOOKED_AT", 2)
    lines = quarantine(config).splitlines()
    assert [line.split()[0] for line in lines] == ["id", "5", "4", "3", "2", "1"]
    assert "kitchen" in lines[1]
    assert "number 4 [31m" in lines[1]
    assert [one["id"] for one in json.loads(quarantine(config, "--json", "--limit", "3"))] == [5, 4, 3]
    of_kitchen = json.loads(quarantine(config, "--json", "--device", "kitchen", "--code", "c"))
    assert [one["id"] for one in of_kitchen] == [5, 3, 1]


def test_what_it_was_is_told_to_programs(config: Path) -> None:
    newest, older = json.loads(quarantine(config, "--json", "--limit", "2"))
    assert (newest["payload"], newest["encoding"]) == ("/w==", "base64")
    assert older == {
        "id": 4,
        "organization_id": "acme",
        "device_id": "attic",
        "source": "http",
        "code": "c",
        "reason": "number 3\x1b[31m",
        "received_at": "2026-11-20T12:00:00.250Z",
        "payload": "no reading",
        "encoding": "text",
    }


def test_nothing_in_it_is_said(config: Path) -> None:
    assert quarantine(config, "--code", "d") == "There is nothing in quarantine.\n"
