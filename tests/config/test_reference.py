"""What is written down about the settings follows from the models."""

import re
import tomllib
from pathlib import Path
from typing import Any

from gateway.config import SerialTable, Settings, load
from gateway.config.reference import commented_file, markdown
from gateway.config.schema import settings_of

README = Path(__file__).parents[2] / "gateway/config/README.md"


def without_tables(settings: Settings) -> dict[str, Any]:
    return settings.model_dump(
        exclude={"gateway": {"data_dir"}, "integrations": True, "serial": True, "ingest": {"routes"}}
    )


def test_the_reference_does_not_lag() -> None:
    assert README.read_text("utf-8") == markdown(), "run: python -m gateway.config.reference > gateway/config/README.md"


def test_every_setting_has_a_meaning() -> None:
    assert [key for key, field in settings_of(Settings) if not field.description] == []


def test_the_commented_file_is_valid_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "neurogate.toml"
    path.write_text(commented_file(), "utf-8")
    assert load(path, {}).settings.mqtt == Settings().mqtt


def test_the_commented_file_shows_every_setting_with_its_default(tmp_path: Path) -> None:
    text = re.sub(r"(?m)^#(?=[a-z\[])", "", commented_file())
    path = tmp_path / "neurogate.toml"
    path.write_text(text, "utf-8")
    loaded = load(path, {"WEBHOOK_SECRET": "x"})
    assert {key for key, origin in loaded.origins.items() if origin == "default"} == set()
    assert without_tables(loaded.settings) == without_tables(Settings())
    assert tomllib.loads(text)["integrations"][0]["name"] == "building-api"
    assert [route.parser for route in loaded.settings.ingest.routes] == ["custom"]
    assert [table.device_id for table in loaded.settings.serial] == ["esp32-usb"]


def test_every_key_of_a_serial_line_has_a_meaning() -> None:
    assert [key for key, field in SerialTable.model_fields.items() if not field.description] == []
