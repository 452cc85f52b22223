"""Every table of the configuration meets the class it names, or says what is wrong."""

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from cloud_sync import registry
from cloud_sync.integrations import webhook
from cloud_sync.integrations.webhook import Webhook
from cloud_sync.registry import BUILT_IN, GROUP, check_config, integration_classes, load_config
from gateway.config import IntegrationTable
from gateway.config.reference import commented_file
from gateway.config.substitution import FromVault
from gateway.model.errors import ConfigError
from gateway.model.secret import Secret

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


def test_built_in_integrations_are_found_without_installing_anything() -> None:
    assert integration_classes()["webhook"].__qualname__ == Webhook.__qualname__


def test_no_file_of_the_integrations_is_forgotten() -> None:
    files = {path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__"}
    assert {value.partition(":")[0].rpartition(".")[2] for value in BUILT_IN.values()} == files


def test_every_integration_stands_under_its_own_type() -> None:
    assert [name for name, found in integration_classes().items() if found.type != name] == []


def test_a_package_adds_integrations_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    added = EntryPoint("added", BUILT_IN["webhook"], GROUP)
    broken = EntryPoint("broken", "no_such_module:Nothing", GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [added, broken] if group == GROUP else [])
    assert load_config(table(type="added", url="https://example.org")).type == "added"
    with pytest.raises(ConfigError) as raised:
        load_config(table(type="broken"))
    assert str(raised.value) == (
        "The integration broken cannot be imported: No module named 'no_such_module'."
        " Install the package that brings it again, with its dependencies."
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
