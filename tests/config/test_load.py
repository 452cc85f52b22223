"""The later source wins, and every value knows where it came from."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.config import Settings, load
from gateway.config.substitution import vault_names, with_secrets

FILE = """
version = 1
[gateway]
data_dir = "kept"
[mqtt]
port = 1884
host = "${env:HOST}"
[[integrations]]
type = "webhook"
name = "api"
url = "https://${env:HOST}/${file:path.txt}"
secret = "${file:secret.txt}"
tags = ["a", "${env:HOST}"]
[integrations.custom_headers]
Authorization = "Bearer ${env:TOKEN}"
"""

NAMED_WEBHOOK = '[[integrations]]\ntype = "webhook"\nname = "api"\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("s3cret ${env:HOST}\n\n")
    (tmp_path / "path.txt").write_text("hook\r\n")
    return tmp_path


def test_without_any_source_the_defaults_hold(folder: Path) -> None:
    loaded = load(None, {})
    assert loaded.path is None
    assert loaded.settings.model_dump(exclude={"gateway": {"data_dir"}}) == Settings().model_dump(
        exclude={"gateway": {"data_dir"}}
    )
    assert loaded.settings.gateway.data_dir == folder / "data"
    assert set(loaded.origins.values()) == {"default"}


def test_the_environment_wins_over_the_file_and_the_file_over_the_defaults() -> None:
    Path("neurogate.toml").write_text("[mqtt]\nport = 1884\n[http]\nport = 8081")
    loaded = load(None, {"NEUROGATE_MQTT__PORT": "1885", "NEUROGATE_GATEWAY__ID": "42", "NEUROGATE_TOKEN": "x"})
    assert loaded.settings.mqtt.port == 1885
    assert loaded.settings.http.port == 8081
    assert loaded.settings.gateway.id == "42"
    assert loaded.settings.storage.max_commit_readings == 5000
    assert loaded.origins["mqtt.port"] == "environment NEUROGATE_MQTT__PORT"
    assert loaded.origins["http.port"] == "file neurogate.toml"
    assert loaded.origins["storage.max_commit_readings"] == "default"


def test_what_the_environment_replaces_in_the_file_does_no_harm() -> None:
    Path("neurogate.toml").write_text('[mqtt]\nhost = "${env:NOPE}"')
    assert load(None, {"NEUROGATE_MQTT__HOST": "::1"}).settings.mqtt.host == "::1"


def test_the_named_file_wins_over_the_variable_and_the_variable_over_the_folder(folder: Path) -> None:
    for name in ("named", "variable", "neurogate"):
        Path(f"{name}.toml").write_text(f'[gateway]\nid = "{name}"')
    environ = {"NEUROGATE_CONFIG": str(folder / "variable.toml")}
    assert load(Path("named.toml"), environ).settings.gateway.id == "named"
    assert load(None, environ).settings.gateway.id == "variable"
    assert load(None, {}).settings.gateway.id == "neurogate"


def test_references_are_put_in_and_remembered(folder: Path) -> None:
    Path("neurogate.toml").write_text(FILE)
    loaded = load(None, {"HOST": "example.org", "TOKEN": "t0ken"})
    raw = loaded.settings.integrations[0].model_extra
    assert loaded.settings.mqtt.host == "example.org"
    assert raw == {
        "url": "https://example.org/hook",
        "secret": "s3cret ${env:HOST}\n",
        "tags": ["a", "example.org"],
        "custom_headers": {"Authorization": "Bearer t0ken"},
    }
    origins = loaded.origins
    assert origins["mqtt.host"] == "file neurogate.toml (from ${env:HOST})"
    assert origins["integrations[api].url"] == "file neurogate.toml (from ${env:HOST}, ${file:path.txt})"
    assert origins["integrations[api].tags"] == "file neurogate.toml (from ${env:HOST})"
    assert origins["integrations[api].custom_headers.Authorization"] == "file neurogate.toml (from ${env:TOKEN})"
    assert origins["integrations[api].name"] == "file neurogate.toml"
    assert loaded.settings.gateway.data_dir == folder / "kept"


def test_a_relative_data_directory_is_next_to_its_file(folder: Path) -> None:
    (folder / "etc").mkdir()
    (folder / "etc/x.toml").write_text("")
    assert load(Path("etc/x.toml"), {}).settings.gateway.data_dir == folder / "etc/data"
    absolute = load(Path("etc/x.toml"), {"NEUROGATE_GATEWAY__DATA_DIR": "/var/lib/neurogate"})
    assert absolute.settings.gateway.data_dir == Path("/var/lib/neurogate")


def test_settings_are_read_only() -> None:
    with pytest.raises(ValidationError):
        load(None, {}).settings.mqtt.port = 1  # type: ignore[misc]


def test_showing_a_table_shows_no_raw_value() -> None:
    Path("neurogate.toml").write_text(FILE)
    loaded = load(None, {"HOST": "example.org", "TOKEN": "t0ken"})
    assert "s3cret" not in f"{loaded!r}{loaded.settings}"


@pytest.mark.parametrize("name", ["EGRESS__ALLOW", "HTTP__TRUSTED_PROXIES", "HTTP__METRICS_FROM", "MDNS__INTERFACES"])
def test_any_list_in_the_environment_has_commas(name: str) -> None:
    section, field = name.lower().split("__")
    loaded = load(None, {f"NEUROGATE_{name}": "127.0.0.1, 10.0.0.0/8,"})
    assert getattr(getattr(loaded.settings, section), field) == ("127.0.0.1", "10.0.0.0/8")


def test_secrets_of_the_vault_are_left_for_whoever_has_it() -> None:
    Path("neurogate.toml").write_text(
        NAMED_WEBHOOK + 'url = "https://${env:HOST}/${vault:A}/${vault:B}?c"\nsecret = ["${vault:A}"]\n'
    )
    loaded = load(None, {"HOST": "x${vault:NOT-THIS}"})
    (table,) = loaded.settings.integrations
    extra = table.model_extra or {}
    assert list(vault_names(extra)) == ["A", "B", "A"]
    assert with_secrets(extra, lambda name: f"<{name}>") == {
        "url": "https://x${vault:NOT-THIS}/<A>/<B>?c",
        "secret": ["<A>"],
    }
    assert loaded.origins["integrations[api].url"] == ("file neurogate.toml (from ${env:HOST}, ${vault:A}, ${vault:B})")
