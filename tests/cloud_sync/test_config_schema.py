"""One model says what a setting is, what of it is secret, and how a change goes into it."""

from typing import Any

from pydantic import Field, JsonValue

from cloud_sync.config_schema import Values, is_secret, joined, patched, schema_of, split, without_masks
from cloud_sync.contract import Integration, IntegrationConfig
from gateway.config import Section
from gateway.config.masking import MASK
from gateway.model.secret import Secret


class Tls(Section):
    ca: str = Field("", description="Whom to believe.")
    client_key: Secret | None = Field(None, description="Who we are.", alias="clientKey")


class Hop(Section):
    host: str = Field(description="Where.")
    token: Secret = Field(description="What opens it.")


class Radio(Integration):
    """Send by radio."""

    type = "radio"

    class Config(IntegrationConfig):
        broker_url: str = Field(description="Where it is.", alias="brokerUrl", repr=False)
        tls: Tls | None = Field(None, description="How it is secured.")
        hops: tuple[Hop, ...] = Field((), description="On the way.")
        headers: dict[str, Secret] = Field({}, description="Said besides.")
        levels: dict[str, int] = Field({}, description="By band.")
        template: JsonValue = Field(None, description="What it sends.")


TOKEN = "a-token-of-20-characters"
RAW: dict[str, Any] = {
    "brokerUrl": f"https://example.org/{TOKEN}",
    "tls": {"ca": "ours", "clientKey": "s1"},
    "hops": [{"host": "a", "token": "s2"}],
    "headers": {"X-A": "s3"},
    "levels": {"a": 1, "b": 2},
    "template": {"a": None},
}


def change(raw: Values, changes: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return patched(Radio.Config, raw, changes)


def test_what_is_secret_goes_apart_and_comes_together_again() -> None:
    shown, secret = split(Radio.Config, RAW)
    assert shown == {
        "brokerUrl": f"https://example.org/{MASK}",
        "tls": {"ca": "ours"},
        "levels": {"a": 1, "b": 2},
        "template": {"a": None},
    }
    assert secret == {
        "brokerUrl": RAW["brokerUrl"],
        "tls.clientKey": "s1",
        "hops": [{"host": "a", "token": "s2"}],
        "headers": {"X-A": "s3"},
    }
    assert joined(shown, secret) == RAW
    assert split(Radio.Config, {"brokerUrl": "https://example.org"}) == ({"brokerUrl": "https://example.org"}, {})


def test_an_empty_list_or_table_has_no_secret_in_it() -> None:
    said: list[dict[str, JsonValue]] = [{"hops": [], "headers": {}}, {"headers": "{}"}]
    for raw in said:
        shown, secret = split(Radio.Config, raw)
        assert (shown, secret) == (raw, {})
        assert joined(shown, secret) == raw


def test_people_are_told_every_setting_by_the_name_that_they_write() -> None:
    schema = schema_of(Radio)
    settings = {one.key: one for one in schema.settings}
    own = [one.key for one in schema.settings if one.key not in IntegrationConfig.model_fields]
    assert own == [
        "report.on_change",
        "report.dead_band",
        "report.heartbeat_s",
        "brokerUrl",
        "tls",
        "tls.ca",
        "tls.clientKey",
        "hops",
        "headers",
        "levels",
        "template",
    ]
    assert [key for key, one in settings.items() if one.secret] == ["tls.clientKey", "hops", "headers"]
    assert (settings["brokerUrl"].type, settings["brokerUrl"].required) == ("string", True)
    assert settings["hops"].type == "list of table"
    assert (settings["timeout_s"].default, settings["timeout_s"].type) == (30.0, "number, more than 0, at most 3600")
    assert not {"type", "name", "status", "organizations"} & {*settings, *schema.json_schema["properties"]}  # type: ignore[misc]
    assert "name" in {one.key for one in schema_of(Radio, without=()).settings}
    properties: Any = schema.json_schema["properties"]
    assert properties["headers"]["writeOnly"] is True
    assert schema.json_schema["required"] == ["brokerUrl"]


def test_a_change_goes_into_tables_key_by_key_and_null_takes_away() -> None:
    assert change(RAW, {"tls": {"ca": "theirs"}})["tls"] == {"ca": "theirs", "clientKey": "s1"}
    assert change(RAW, {"tls": {"clientKey": None}})["tls"] == {"ca": "ours"}
    assert "tls" not in change(RAW, {"tls": None})
    assert change(RAW, {"headers": {"X-A": None, "X-B": "s4"}})["headers"] == {"X-B": "s4"}
    assert change(RAW | {"headers": '{"X-A": "s3"}'}, {"headers": '{"X-B": "s4"}'})["headers"] == {
        "X-A": "s3",
        "X-B": "s4",
    }
    assert change(RAW, {"hops": []})["hops"] == []
    assert change(RAW, {"template": {"b": None}})["template"] == {"b": None}  # a whole, in which null is something
    assert change({}, RAW) == RAW


def test_what_was_shown_of_a_secret_is_no_change() -> None:
    shown, secret = split(Radio.Config, RAW)
    names = tuple(secret)
    said: dict[str, Any] = {**shown, "tls": {"ca": "x", "clientKey": MASK}, "headers": MASK}
    assert without_masks(said, shown, names) == {
        "tls": {"ca": "x"},
        "levels": {"a": 1, "b": 2},
        "template": {"a": None},
    }
    assert without_masks({"brokerUrl": "https://else.org"}, shown, names) == {"brokerUrl": "https://else.org"}


def test_what_may_never_be_repeated_is_known_by_its_place() -> None:
    for location in (("tls", "clientKey"), ("hops", 0, "host"), ("headers", "X-A", "[key]"), ("brokerUrl",)):
        assert is_secret(Radio.Config, location)
    for other in (("tls", "ca"), ("levels", "a"), ("nothing",), ()):
        assert not is_secret(Radio.Config, other)
