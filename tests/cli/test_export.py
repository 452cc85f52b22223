"""`neurogate buffer export`: whole, filtered, interrupted and gone on with; beside a running gateway and without."""

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli.export import Format, _take_up
from gateway.cli.gateway_link import connect
from gateway.config import Settings
from gateway.model.errors import BadInput
from gateway.model.reading import NewReading, TimeSource
from gateway.operations.export import export_readings
from gateway.storage.data_dir import DataDir
from tests.cloud_sync.site import open_site
from tests.gateway_here import GatewayHere
from tests.gateway_process import GatewayProcess

NOW_MS = 1_795_176_000_000
COUNT = 1_000


async def store(data_dir: Path, count: int) -> None:
    """Readings of two boards in turn, a second apart, two sensors each."""
    async with open_site(DataDir(data_dir).ensure().log_db) as site:
        streams = [site.log.stream("default", name, "b") for name in ("kitchen", "hall")]
        await site.log.append(
            [
                NewReading(
                    streams[n % 2],
                    n,
                    NOW_MS + 1_000 * n,
                    TimeSource.DEVICE,
                    NOW_MS,
                    0,
                    b'{"sensors": {"pir": {"motion_detected": true}, "a,\\n\\"x": {"n": %d}}}' % n,
                )
                for n in range(count)
            ]
        )


@pytest.fixture(params=["running", "not running"], scope="module")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One for all: an export changes nothing."""
    site = GatewayHere(tmp_path_factory.mktemp("site"))
    asyncio.run(store(site.data_dir, COUNT))
    if request.param == "running":
        site.start()
    yield site
    site.kill()


def rows(text: str) -> list[int]:
    return [int(json.loads(line)["id"].rpartition(":")[2]) for line in text.splitlines()]


def test_every_reading_comes_once_as_destinations_see_it(site: GatewayProcess) -> None:
    done = site.neurogate("buffer", "export")
    assert rows(done.stdout) == list(range(1, COUNT + 1))
    assert json.loads(done.stdout.splitlines()[0])["sensors"]["pir"] == {"motion_detected": True}
    assert "export: 1,000 of 1,000 rows" in done.stderr
    assert done.stderr.endswith("1,000 readings exported.\n")


def test_only_what_was_asked_for_comes(site: GatewayProcess) -> None:
    words = ("--device", "kitchen", "--from", "2026-11-20T12:00:10Z", "--to", "2026-11-20T12:00:20")
    done = site.neurogate("buffer", "export", *words)
    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [10, 12, 14, 16, 18]


def test_csv_is_one_row_a_sensor(site: GatewayProcess) -> None:
    done = site.neurogate("buffer", "export", "--format", "csv", "--device", "hall")
    read = list(csv.DictReader(io.StringIO(done.stdout)))
    assert len(read) == COUNT
    assert [(one["device_id"], one["sensor"], one["fields"]) for one in read[:2]] == [
        ("hall", "pir", '{"motion_detected":true}'),
        ("hall", 'a, "x', '{"n":1}'),
    ]
    assert read[0]["time"] == "2026-11-20T12:00:01.000Z"
    assert len(done.stdout.splitlines()) == COUNT + 1


@pytest.mark.parametrize("as_format", ["jsonl", "csv"])
def test_wherever_it_was_interrupted_it_goes_on_and_the_file_is_the_same(
    site: GatewayProcess, tmp_path: Path, as_format: str
) -> None:
    words = ("buffer", "export", "--format", as_format)
    whole = site.neurogate(*words).stdout.encode()
    file = tmp_path / "export"
    for size in (0, 3, 100, 333, len(whole) // 2, len(whole) - 1, len(whole)):
        file.write_bytes(whole[:size])
        assert site.neurogate(*words, "--output", str(file)).returncode == 0
        assert file.read_bytes() == whole


def test_a_new_file_is_its_owners_alone(site: GatewayProcess, tmp_path: Path) -> None:
    site.neurogate("buffer", "export", "--output", str(tmp_path / "export"))
    assert (tmp_path / "export").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["hello\nworld\n", '{"id": "site-1:another:7"}\n', "id,other\n1,2\n"])
@pytest.mark.parametrize("as_format", ["jsonl", "csv"])
def test_a_file_that_is_something_else_is_left_alone(
    site: GatewayProcess, tmp_path: Path, content: str, as_format: str
) -> None:
    (tmp_path / "notes").write_text(content)
    done = site.neurogate("buffer", "export", "--format", as_format, "--output", str(tmp_path / "notes"))
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert (tmp_path / "notes").read_text() == content


@pytest.mark.parametrize("as_format", list(Format))
def test_every_cut_ends_on_a_whole_reading(tmp_path: Path, as_format: Format) -> None:
    """Cut at every byte; lines longer than what is read at once among them."""
    lines = {
        Format.jsonl: [b'{"id":"g:u:%d","x":"%b"}\n' % (n, b"y" * (70_000 if n == 3 else 3)) for n in range(1, 5)],
        Format.csv: [b"id,organization_id,device_id,time,time_source,sensor,fields\n"]
        + [b"g:u:%d,o,d,t,s,%d,{}\n" % (n, sensor) for n in range(1, 4) for sensor in range(3)],
    }[as_format]
    whole = b"".join(lines)
    path = tmp_path / "export"
    for size in [*range(min(len(whole), 300)), *range(max(0, len(whole) - 300), len(whole) + 1)]:
        path.write_bytes(whole[:size])
        with path.open("r+b") as file:
            last_id = _take_up(file, as_format, path)
            left = path.read_bytes()
            assert file.tell() == len(left)
        assert whole.startswith(left)
        assert left.endswith(b"\n") or not left
        assert last_id == (None if not left else "g:u:" + left.splitlines()[-1].split(b"g:u:")[1][:1].decode())
        if as_format == Format.jsonl:
            assert size - len(left) < 70_100


async def test_pages_are_small_and_nothing_new_comes_in_between(tmp_path: Path) -> None:
    settings = Settings.model_validate({"gateway": {"data_dir": tmp_path}})
    await store(tmp_path, 30_000)
    async with connect(settings) as link:
        pages = [
            page async for page in link.stream(export_readings, devices=[], from_ms=None, to_ms=None, after_id=None)
        ]
        assert max(len(page.readings) for page in pages) == 200
        assert sum(len(page.readings) for page in pages) == 30_000
        quiet = [
            page.row
            async for page in link.stream(export_readings, devices=["attic"], from_ms=None, to_ms=None, after_id=None)
        ]
        assert quiet == [0, 20_200, 30_000]
        with pytest.raises(BadInput, match="no reading of this gateway's log"):
            await anext(link.stream(export_readings, devices=[], from_ms=None, to_ms=None, after_id="site-1:x:1"))
