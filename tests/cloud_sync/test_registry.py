"""Every table of the configuration meets the class it names, or says what is wrong."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from cloud_sync.integrations import webhook
from cloud_sync.integrations.webhook import Webhook
from cloud_sync.reference import markdown
from cloud_sync.registry import BUILT_IN, check_config, config_of, integration_classes, known_integrations, load_config
from gateway.config import IntegrationTable
from gateway.config.reference import commented_file
from gateway.config.substitution import FromVault
from gateway.model.errors import ConfigError
from gateway.model.secret import Secret
from gateway.storage.integrations import IntegrationRow
from tests.cloud_sync.installed import OTHER_PACKAGE, install, install_made_up

FOLDER = Path(webhook.__file__).parent
SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def table(**keys: object) -> IntegrationTable:
    return IntegrationTable.model_validate({"type": "webhook", "name": "api"} | keys)


def complaint(origins: dict[str, str] | None = None, **keys: object) -> str:
    with pytest.raises(ConfigError) as raised:
        load_config(table(**keys), origins or {})
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None
    return str(raised.value)


def sentences(*words: str) -> list[str]:
    return list(words)


def test_built_in_integrations_are_found_without_installing_anything() -> None:
    assert integration_classes()["webhook"].__qualname__ == Webhook.__qualname__


def test_no_file_of_the_integrations_is_forgotten() -> None:
    files = {path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__"}
    assert {value.partition(":")[0].rpartition(".")[2] for value in BUILT_IN.values()} == files


def test_every_integration_stands_under_its_own_type() -> None:
    assert [name for name, found in integration_classes().items() if found.type != name] == []


def test_a_package_adds_integrations_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(OTHER_PACKAGE, tmp_path, monkeypatch)
    config = load_config(table(type="spool", folder=str(tmp_path)))
    assert type(config).__module__ == "neurogate_spool"
    assert known_integrations().problems == []
    assert list(integration_classes()) == [*BUILT_IN, "spool"]
    assert complaint(type="spol").endswith("names an unknown integration, spol. Did you mean spool?")


def test_a_package_that_is_broken_is_told_and_stops_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_made_up("raises", {"raises": "raises:It"}, tmp_path, monkeypatch, "1 / 0")
    install_made_up("lacks", {"lacks": "lacks:It"}, tmp_path, monkeypatch)
    install_made_up("other", {"other": "other:It"}, tmp_path, monkeypatch, "class It:\n    type = 'other'\n")
    renamed = "from cloud_sync.contract import Integration\nclass It(Integration):\n    type = 'otherwise'\n"
    install_made_up("renamed", {"renamed": "renamed:It"}, tmp_path, monkeypatch, renamed)
    install(OTHER_PACKAGE, tmp_path, monkeypatch)
    known = known_integrations()
    assert list(known.classes) == [*BUILT_IN, "spool"]
    assert known.problems == sentences(
        "The integration lacks cannot be imported: module 'lacks' has no attribute 'It'."
        " Install the package that brings it again, with its dependencies.",
        "The integration other of the package other is no integration: its class is none of"
        " cloud_sync.contract.Integration. Tell its maker.",
        "The integration raises cannot be imported: division by zero."
        " Install the package that brings it again, with its dependencies.",
        "The integration renamed of the package renamed calls itself otherwise in its class: the two must be the same."
        " Tell its maker.",
    )
    with pytest.raises(ConfigError, match="The integration raises cannot be imported"):
        load_config(table(type="raises"))


def test_a_name_that_is_taken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_made_up("thief", {"webhook": "thief:It"}, tmp_path, monkeypatch, "1 / 0")
    install_made_up("first", {"both": "first:It"}, tmp_path, monkeypatch)
    install_made_up("second", {"both": "second:It"}, tmp_path, monkeypatch)
    assert isinstance(load_config(table(url="https://example.org")), Webhook.Config)
    assert known_integrations().problems == sentences(
        "Several packages bring an integration both: first and second. Uninstall all of them but one.",
        "The package thief brings an integration webhook, a name that is taken: it is not used."
        " Its maker has to call it otherwise.",
    )


def test_a_good_table_becomes_the_integrations_own_configuration() -> None:
    config = load_config(table(url="https://example.org/hook", secret=SECRET, timeout_s=5))
    assert isinstance(config, Webhook.Config)
    assert config.name == "api"
    assert config.timeout_s == 5.0
    assert config.secret == (Secret(SECRET),)


def test_the_example_of_the_commented_file_is_good() -> None:
    example = commented_file().partition("#[[integrations]]")[2].replace("\n#", "\n")
    assert load_config(table(**tomllib.loads(example) | {"secret": SECRET})).name == "building-api"


def test_an_unknown_type_is_named_with_the_nearest_right_one() -> None:
    origins = {"integrations[api].type": "file neurogate.toml"}
    assert complaint(origins, type="webhok") == (
        "integrations[api].type in neurogate.toml names an unknown integration, webhok. Did you mean webhook?"
    )
    assert "There are: " in complaint(type="xyzzy")


def test_an_unknown_key_is_named_with_the_nearest_right_one() -> None:
    origins = {"integrations[api].urll": "file neurogate.toml"}
    assert complaint(origins, url="https://example.org", urll="x") == (
        "Unknown key integrations[api].urll in neurogate.toml. Did you mean integrations[api].url?"
    )


def test_a_missing_key_and_a_wrong_one_are_told_together() -> None:
    assert complaint(timeout_s="x") == (
        "The configuration has 2 problems:\n"
        '- integrations[api].timeout_s must be a number, not "x".\n'
        "- integrations[api].url is missing. Where the batches go."
    )


def test_a_bad_secret_is_never_repeated() -> None:
    said = complaint(url="https://example.org", secret="hunter2")
    assert said.startswith("integrations[api].secret: ")
    assert "hunter2" not in said
    origins = {"integrations[api].timeout_s": "file neurogate.toml (from ${env:T})"}
    assert "hunter2" not in complaint(origins, url="https://example.org", timeout_s="hunter2")


IN_VAULT = FromVault(("", ""), ("A",))


def test_secrets_of_the_vault_are_put_in_wherever_they_stand() -> None:
    headers = {"X-A": FromVault(("Key ", "!", ""), ("A", "B"))}
    url = FromVault(("https://example.org/", ""), ("A",))
    config = load_config(
        table(url=url, secret=[IN_VAULT, SECRET], custom_headers=headers), secret_of=lambda name: name * 24
    )
    assert isinstance(config, Webhook.Config)
    assert str(config.url) == f"https://example.org/{'A' * 24}"
    assert config.secret == (Secret("A" * 24), Secret(SECRET))
    assert config.custom_headers == {"X-A": Secret(f"Key {'A' * 24}!{'B' * 24}")}


def test_without_the_vault_a_table_with_its_secrets_is_checked_as_far_as_that_goes() -> None:
    assert isinstance(check_config(table(url="https://example.org", secret=IN_VAULT)), Webhook.Config)
    unsure = check_config(table(url=IN_VAULT, status="inactive", timeout_s=3))
    assert (unsure.name, unsure.status, unsure.timeout_s) == ("api", "inactive", 3.0)
    for keys, expected in (
        ({"url": IN_VAULT, "sercet": IN_VAULT}, "Unknown key integrations[api].sercet"),
        ({"secret": IN_VAULT}, "integrations[api].url is missing"),
        ({"url": IN_VAULT, "method": "GET"}, "integrations[api].method"),
        ({"url": IN_VAULT, "timeout_s": IN_VAULT}, "integrations[api].timeout_s must be a number."),
        ({"url": IN_VAULT, "status": IN_VAULT}, "integrations[api].status must be a string."),
    ):
        with pytest.raises(ConfigError) as raised:
            check_config(table(**keys))
        assert str(raised.value).startswith(expected)
    with pytest.raises(ConfigError, match="The secret A is in the vault"):
        load_config(table(url=IN_VAULT))


def test_p7_what_the_vault_gave_is_not_repeated() -> None:
    for keys in ({"url": IN_VAULT}, {"url": "https://x", "method": IN_VAULT}, {"url": "https://x", "gzip": IN_VAULT}):
        with pytest.raises(ConfigError) as raised:
            load_config(table(**keys), secret_of=lambda _: "planted-4711")
        assert "in ${vault:A}" in str(raised.value)
        assert "planted" not in str(raised.value)


def row(**settings: Any) -> IntegrationRow:
    return IntegrationRow("4711", "acme", "webhook", "To the cloud", {"url": "https://example.org"} | settings)


def test_a_row_becomes_a_configuration_of_its_organisation_alone() -> None:
    config = config_of(row(devices=["k*"]), {"auth_token": SECRET})
    assert isinstance(config, Webhook.Config)
    assert (config.name, config.organizations, config.devices) == ("4711", ("acme",), ("k*",))
    assert config.auth_token == Secret(SECRET)
    for key, value in (("organizations", ["other"]), ("name", "x"), ("status", "active"), ("type", "slack")):
        with pytest.raises(ConfigError, match=f"^{key} is no setting of an integration that an organisation has"):
            config_of(row(**{key: value}), {})


def test_what_does_not_go_together_in_a_row_is_said_of_its_settings() -> None:
    with pytest.raises(ConfigError, match=r"^settings: a request carries one reading"):
        config_of(row(cloudevents="structured"), {})


def test_p7_what_is_wrong_with_a_row_is_told_without_its_secrets() -> None:
    planted: tuple[dict[str, Any], ...] = (
        {"auth_token": {"planted": "planted-4711"}},
        {"custom_headers": {"X A": "planted-4711"}},
        {"secret": "planted-4711"},
        {"url": "planted-4711"},
    )
    for secrets in planted:
        with pytest.raises(ConfigError) as raised:
            config_of(row(), secrets)
        assert next(iter(secrets)) in str(raised.value)
        assert "planted" not in str(raised.value)
    with pytest.raises(ConfigError) as raised:
        config_of(IntegrationRow("1", "acme", "webhok", "x"), {})
    assert str(raised.value) == "integration_type names an unknown integration, webhok. Did you mean webhook?"


def test_the_reference_of_the_integrations_does_not_lag() -> None:
    renew = "run: python -m cloud_sync.reference > cloud_sync/integrations/README.md"
    assert (FOLDER / "README.md").read_text("utf-8") == markdown(), renew
