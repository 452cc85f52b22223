"""Every guide has the same parts, its settings are good, its commands exist, and it is found."""

import re
from pathlib import Path

import pytest

from cloud_sync.registry import check_config
from gateway.config import load
from tests.cloud_sync.integrations.clouds.google import made_account
from tests.guides.pages import FOLDER, GUIDES, blocks, text_of
from tests.test_docs import COMMANDS, README, SECRET

PARTS = ["You need", "Do", "See that it works", "What goes wrong", "Limits", "What was tried"]


def test_there_are_guides() -> None:
    assert GUIDES


@pytest.mark.parametrize("page", GUIDES)
def test_it_has_the_same_parts_as_the_others(page: str) -> None:
    found = re.findall(r"^## (.*)$", text_of(page), re.MULTILINE)
    assert [one.removesuffix(" and costs") for one in found] == PARTS


@pytest.mark.parametrize("page", GUIDES)
def test_it_is_found(page: str) -> None:
    assert f"]({page})" in (FOLDER / "README.md").read_text("utf-8")
    assert f"](cloud_sync/guides/{page})" in README


@pytest.mark.parametrize("page", GUIDES)
def test_its_settings_are_good(page: str, tmp_path: Path) -> None:
    (tmp_path / "google-key.json").write_text(made_account().key_file)
    path = tmp_path / "neurogate.toml"
    for example in blocks(page, "toml"):
        path.write_text(example, "utf-8")
        for table in load(path, dict.fromkeys(re.findall(r"\$\{env:(\w+)\}", example), SECRET)).settings.integrations:
            assert check_config(table).name == table.name


@pytest.mark.parametrize("page", [*GUIDES, "../../firmware/examples/README.md"])
def test_its_commands_exist(page: str) -> None:
    shown = [line for block in blocks(page, "sh") for line in block.splitlines() if line.startswith("neurogate ")]
    named = re.findall(r"`(neurogate [a-z]+[^`]*)`", text_of(page))
    groups = {command.rsplit(" ", 1)[0] for command in COMMANDS} - {"neurogate"}
    for command in shown + [one for one in named if one not in groups]:
        assert any(f"{command} ".startswith(f"{known} ") for known in COMMANDS), command
