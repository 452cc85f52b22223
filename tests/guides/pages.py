"""The guides, as their readers copy from them."""

import re
from pathlib import Path
from typing import Any

from cloud_sync.contract import Integration
from cloud_sync.registry import check_config, integration_classes
from gateway.clock import ManualClock
from gateway.config import load
from tests.cloud_sync.samples import ANYWHERE, NOW_MS

FOLDER = Path(__file__).parents[2] / "cloud_sync" / "guides"
GUIDES = sorted(page.name for page in FOLDER.glob("*.md") if page.name != "README.md")


def text_of(page: str) -> str:
    return (FOLDER / page).read_text("utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)


def replaced(text: str, by: dict[str, str]) -> str:
    """Return a text with these parts replaced; a part that is not there is a failure."""
    for old, new in by.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def integration(toml: str, folder: Path, environ: dict[str, str] | None = None) -> Any:
    """Return the only integration of a configuration."""
    path = folder / "neurogate.toml"
    path.write_text(toml, "utf-8")
    [table] = load(path, environ or {}).settings.integrations
    config = check_config(table)
    made: type[Integration] = integration_classes()[config.type]
    return made(config, ManualClock(NOW_MS), ANYWHERE)
