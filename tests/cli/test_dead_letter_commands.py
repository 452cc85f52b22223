"""`neurogate buffer dead-letters`, `replay` and `drop`."""

import asyncio
import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from cloud_sync.contract import Batch, Outcome, Rejected
from gateway.cli import command_line
from gateway.cli.progress import ProgressShown
from gateway.model.errors import NotFound
from gateway.storage.data_dir import DataDir
from tests.cloud_sync.samples import append
from tests.cloud_sync.site import Scripted, deliver_all, open_site

POISON = (2, 3, 5)


class Picky(Scripted):
    async def send(self, batch: Batch, body: bytes) -> Outcome:
        if {reading.row for reading in batch.readings}.intersection(POISON):
            return Rejected("too \x1b[31mhot")
        return await super().send(batch, body)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration without integrations, and a log with three dead letters."""

    async def fill() -> None:
        async with open_site(DataDir(tmp_path).ensure().log_db) as site:
            await append(site.log, 6)
            await deliver_all(site, Picky())

    asyncio.run(fill())
    file = tmp_path / "neurogate.toml"
    file.write_text(f'version = 1\n[gateway]\ndata_dir = "{tmp_path}"\n')
    return file


def neurogate(config: Path, *words: str) -> Result:
    return CliRunner().invoke(command_line(), ["buffer", *words, "-c", str(config)])


def test_they_are_listed_with_what_the_destination_said(config: Path) -> None:
    words = neurogate(config, "dead-letters").stdout
    assert "esp32-kitchen" in words
    assert "too  [31mhot" in words
    assert "\x1b[31m" not in words
    listed = json.loads(neurogate(config, "dead-letters", "--json").stdout)
    assert [(one["row"], one["attempts"], one["destination"]) for one in listed] == [
        (row, 1, "cloud") for row in POISON
    ]
    assert listed[0]["id"].endswith(":2")
    assert json.loads(neurogate(config, "dead-letters", "--json", "--destination", "other").stdout) == []


def test_the_status_counts_them(config: Path) -> None:
    (one,) = json.loads(neurogate(config, "status", "--json").stdout)["destinations"]
    assert (one["undelivered"], one["dead_letters"]) == (0, 3)


def test_a_replay_without_a_gateway_waits_for_its_next_start(config: Path) -> None:
    result = neurogate(config, "replay", "3")
    assert result.exit_code == 0
    assert "Replay requested: 1 reading." in result.stdout
    assert "after its next start" in result.stdout
    assert "no active integration cloud" in result.stderr
    requested = [one["replay_requested"] for one in json.loads(neurogate(config, "dead-letters", "--json").stdout)]
    assert requested == [False, True, False]


def test_dropped_ones_are_gone(config: Path) -> None:
    assert neurogate(config, "drop", "2", "3").stdout == "Dropped: 2 readings.\n"
    assert neurogate(config, "drop", "--all").stdout == "Dropped: 1 reading.\n"
    assert neurogate(config, "dead-letters").stdout == "There are no dead letters.\n"


@pytest.mark.parametrize("command", ["replay", "drop"])
def test_what_is_meant_must_be_said(config: Path, command: str) -> None:
    assert neurogate(config, command).exit_code == 2
    assert neurogate(config, command, "--all", "3").exit_code == 2
    assert isinstance(neurogate(config, command, "4").exception, NotFound)
    assert len(json.loads(neurogate(config, "dead-letters", "--json").stdout)) == 3


@pytest.mark.parametrize("terminal", [True, False])
def test_the_progress_is_a_bar_on_a_terminal_and_a_few_lines_elsewhere(
    capsys: pytest.CaptureFixture[str], *, terminal: bool
) -> None:
    screen = io.StringIO()
    with ProgressShown("replay", "readings", console=Console(file=screen, force_terminal=terminal, width=80)) as shown:
        for done in range(301):
            shown.update(done, 300)
    plain = capsys.readouterr().err.splitlines()
    if terminal:
        assert plain == []
        assert "100%" in screen.getvalue()
    else:
        assert plain == [f"replay: {done} of 300 readings" for done in (0, 75, 150, 225, 300)]
        assert screen.getvalue() == ""
