"""Routes are checked when they are read; what is wrong is named with what is right."""

from pathlib import Path
from typing import get_args

import pytest

from gateway.config import load
from gateway.config.routes import ParserName
from gateway.model.errors import ConfigError
from gateway.parsers.routes import PARSERS

CUSTOM = """
[[ingest.routes]]
topic = "factory/+/x"
parser = "custom"
[ingest.routes.mapping]
device_id = "id"
[ingest.routes.mapping.sensors.climate]
"""


def loaded(folder: Path, text: str) -> object:
    path = folder / "neurogate.toml"
    path.write_text(f"version = 1\n{text}", "utf-8")
    return load(path, {}).settings.ingest.routes


def route(**keys: str) -> str:
    return "[[ingest.routes]]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (route(topic='"#"', parser='"senml"'), "begins with a level that is written out"),
        (route(topic='"+/x"', parser='"senml"'), "begins with a level that is written out"),
        (route(topic='"a/#/b"', parser='"senml"'), "is no topic filter"),
        (route(topic='""', parser='"senml"'), "is no topic filter"),
        (route(topic='"$SYS/x"', parser='"senml"'), "the broker's own"),
        (route(topic='"a"', parser='"xml"'), "'standard', 'custom', 'senml' or 'vmark'"),
        (route(topic='"a"', parser='"custom"'), "needs a mapping"),
        (route(topic='"a"'), "ingest.routes[0].parser is missing"),
        (route(topic='"a"', parser='"senml"', organization_id='"a/b"'), "cannot be an organisation"),
        (route(topic='"a"', parser='"senml"', parsre='"x"'), "Unknown key ingest.routes[0].parsre"),
        (CUSTOM, "the sensor climate has no field"),
        (CUSTOM + 't = "a..b"', "ingest.routes[0].mapping.sensors.climate.t"),
        (CUSTOM + "t = {}", "exactly one of path, topic_level and value"),
        (CUSTOM + 't = { path = "a", value = 1 }', "exactly one of path, topic_level and value"),
        (CUSTOM + "t = { topic_level = 0 }", "must be at least 1"),
        (CUSTOM + 't = { path = "a", scale = nan }', "finite"),
        (CUSTOM.replace('"custom"', '"senml"') + 't = "a"', "takes no mapping"),
    ],
)
def test_a_wrong_route_says_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, text)
    assert words in str(raised.value)


def test_a_right_one_is_taken(tmp_path: Path) -> None:
    assert loaded(tmp_path, CUSTOM + 't = "a"')


def test_every_parser_that_may_be_named_exists() -> None:
    assert {*PARSERS, "custom"} == set(get_args(ParserName))
