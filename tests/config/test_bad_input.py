"""Each mistake in a configuration has one clear sentence, and often the right word."""

from pathlib import Path

import pytest

from gateway.config import load
from gateway.model.errors import ConfigError


def complaint(text: str, environ: dict[str, str] | None = None) -> str:
    """Return what is said about a neurogate.toml in the working directory."""
    Path("neurogate.toml").write_text(text, "utf-8")
    with pytest.raises(ConfigError) as raised:
        load(None, environ or {})
    assert raised.value.exit_code == 78
    return str(raised.value)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


NAMED = '[[integrations]]\ntype = "webhook"\nname = "api"\n'
SERIAL = '[[serial]]\nport = "/dev/ttyUSB0"\ndevice_id = "usb"\n'


IN_THE_FILE = {
    "[mqtt]\nprot = 1": "Unknown key mqtt.prot in neurogate.toml. Did you mean mqtt.port?",
    "[mqqt]\nport = 1": "Unknown key mqqt in neurogate.toml. Did you mean mqtt?",
    "[mqtt]\nxyzzy = 1": "Unknown key mqtt.xyzzy in neurogate.toml.",
    "[log]\ndedupe_window_s = 1": "Unknown key log.dedupe_window_s in neurogate.toml."
    " Did you mean ingest.dedupe_window_s?",
    "port = 1": "Unknown key port in neurogate.toml. Did you mean mqtt.port or http.port?",
    "version = 2": "version in neurogate.toml must be 1, not 2.",
    "mqtt = 5": "mqtt in neurogate.toml must be a table, not 5.",
    '[mqtt]\nport = "x"': 'mqtt.port in neurogate.toml must be a whole number, not "x".',
    "[mqtt]\nport = 1.5": "mqtt.port in neurogate.toml must be a whole number, not 1.5.",
    "[mqtt]\nport = [1]": "mqtt.port in neurogate.toml must be a whole number.",
    "[mqtt]\nport = 70000": "mqtt.port in neurogate.toml must be at most 65535, not 70000.",
    "[http]\nport = -1": "http.port in neurogate.toml must be at least 0, not -1.",
    "[mqtt]\nconnect_timeout_s = 0": "mqtt.connect_timeout_s in neurogate.toml must be more than 0.0, not 0.",
    '[mqtt]\nconnect_timeout_s = "x"': 'mqtt.connect_timeout_s in neurogate.toml must be a number, not "x".',
    "[mqtt]\nhost = 1": "mqtt.host in neurogate.toml must be a string, not 1.",
    "[mqtt]\nallow_anonymous = true": "mqtt.allow_anonymous in neurogate.toml:"
    " only false is possible: nothing listens without authentication.",
    "[mqtt]\nallow_anonymous = 5": "mqtt.allow_anonymous in neurogate.toml must be true or false, not 5.",
    '[log]\nformat = "xml"': "log.format in neurogate.toml must be 'auto', 'text' or 'json', not \"xml\".",
    "[storage]\nsynchronous = false": "storage.synchronous in neurogate.toml must be 'full' or 'normal', not false.",
    "[storage]\ncommit_max_delay_ms = 10001": "storage.commit_max_delay_ms in neurogate.toml"
    " must be at most 10000, not 10001.",
    "[gateway]\ndata_dir = 3": "gateway.data_dir in neurogate.toml must be a path, not 3.",
    '[gateway]\nid = "a b"': 'gateway.id in neurogate.toml must match ^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$, not "a b".',
    '[egress]\npolicy = "all"': "egress.policy in neurogate.toml must be 'any', 'lan' or 'public', not \"all\".",
    '[egress]\nallow = ["10.0.0.1/8"]': "egress.allow in neurogate.toml: 10.0.0.1/8 is no host name, address or"
    " network; write them like api.local, ::1 or 10.1.0.0/16.",
    '[[serial]]\nport = "/dev/ttyUSB0"': "serial[0].device_id is missing in neurogate.toml."
    " The device it is; a board must say the same in its readings.",
    SERIAL.replace("/dev/", ""): "serial[0].port in neurogate.toml:"
    " it must be a whole path, such as /dev/ttyUSB0 or /dev/serial/by-id/usb-*.",
    SERIAL.replace("usb", "a b"): "serial[0].device_id in neurogate.toml:"
    " it must be letters, digits and _ . : -, at most 100, and begin with a letter or digit.",
    SERIAL + 'organization_id = "a/b"': "serial[0].organization_id in neurogate.toml:"
    " it must be letters, digits and _ . : -, at most 100, and begin with a letter or digit.",
    SERIAL + 'format = "csv"': "serial[0].format in neurogate.toml must be 'lines' or 'ld2410', not \"csv\".",
    SERIAL + 'format = "ld2410"\nacknowledge = true': "serial[0] in neurogate.toml:"
    ' acknowledge is only for format = "lines"; remove it.',
    SERIAL + "dead_band_cm = 3": 'serial[0] in neurogate.toml: dead_band_cm is only for format = "ld2410"; remove it.',
    SERIAL + "baudrate = 9600": "Unknown key serial[0].baudrate in neurogate.toml. Did you mean serial[0].baud_rate?",
    SERIAL + SERIAL: "serial in neurogate.toml: the port /dev/ttyUSB0 is there more than once;"
    " one program can read it, once.",
    "integrations = 3": "integrations in neurogate.toml must be a list, not 3.",
    NAMED + NAMED: "integrations in neurogate.toml: the name api is used more than once;"
    " a name is one destination's identity.",
    '[[integrations]]\nname = "api"': "integrations[api].type is missing in neurogate.toml. Which integration this is.",
    '[[integrations]]\ntype = "webhook"': "integrations[0].name is missing in neurogate.toml."
    " Its identity: the name of its cursor.",
    NAMED.replace("api", "${env:X}"): "integrations[${env:X}].name in neurogate.toml"
    ' must match ^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$, not "${env:X}".',
    "[mqtt]\nport = \n": "neurogate.toml, line 2, column 8: Invalid value. Correct the TOML (see https://toml.io).",
    "[mqtt]\nport": "neurogate.toml, line 2, column 5: Expected '=' after a key in a key/value pair."
    " Correct the TOML (see https://toml.io).",
    "[mqtt]\n[mqtt]": "neurogate.toml, line 2, column 6: Cannot declare ('mqtt',) twice."
    " Correct the TOML (see https://toml.io).",
}


@pytest.mark.parametrize(("text", "message"), IN_THE_FILE.items())
def test_a_mistake_in_the_file_is_named(text: str, message: str) -> None:
    assert complaint(text) == message


IN_THE_ENVIRONMENT = {
    "NEUROGATE_MQTT__PROT=1": "Unknown setting NEUROGATE_MQTT__PROT in the environment."
    " Did you mean NEUROGATE_MQTT__PORT?",
    "NEUROGATE_MQTT_PORT=1": "Unknown setting NEUROGATE_MQTT_PORT in the environment."
    " Did you mean NEUROGATE_MQTT__PORT?",
    "NEUROGATE_INTEGRATIONS__API__URL=x": "NEUROGATE_INTEGRATIONS__API__URL is not possible."
    " Integrations are configured in the file only.",
    "NEUROGATE_SERIAL__PORT=x": "NEUROGATE_SERIAL__PORT is not possible. Serial lines are configured in the file only.",
    "NEUROGATE_MQTT__PORT=x": 'mqtt.port in NEUROGATE_MQTT__PORT must be a whole number, not "x".',
    "NEUROGATE_MQTT__HOST=${env:NOPE}": "mqtt.host in NEUROGATE_MQTT__HOST uses ${env:NOPE},"
    " which is not set. Set the environment variable NOPE.",
}


@pytest.mark.parametrize(("assignment", "message"), IN_THE_ENVIRONMENT.items())
def test_a_mistake_in_the_environment_is_named(assignment: str, message: str) -> None:
    variable, _, value = assignment.partition("=")
    assert complaint("", {variable: value}) == message


def test_a_reference_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    assert complaint(NAMED + 'url = "https://x/${env:NOPE}"') == (
        "integrations[api].url in neurogate.toml uses ${env:NOPE}, which is not set. Set the environment variable NOPE."
    )
    assert complaint(NAMED + 'secret = "${file:nope}"') == (
        "integrations[api].secret in neurogate.toml uses ${file:nope}, which cannot be read"
        f" (No such file or directory). Create {tmp_path}/nope, or allow the gateway to read it."
    )
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert complaint(NAMED + 'secret = "${file:binary}"') == (
        "integrations[api].secret in neurogate.toml uses ${file:binary}, which is not UTF-8 text."
        f" Store {tmp_path}/binary as UTF-8."
    )
    assert complaint(NAMED + 'secret = "${evn:X}"') == (
        "integrations[api].secret in neurogate.toml uses ${evn:X}, which is not known."
        " Write ${env:NAME}, ${file:/path} or, in an integration, ${vault:NAME}."
    )


def test_what_the_environment_gave_is_not_repeated_out_of_a_list_either() -> None:
    words = complaint('[egress]\nallow = ["10.0.0.1", " ${env:A} x "]', {"A": "s3cr3t"})
    assert "******** is no host name" in words
    assert "s3cr3t" not in words


def test_the_vault_is_for_the_keys_of_integrations() -> None:
    words = (
        "uses ${vault:A}, which is possible only in an integration's own keys. Use ${env:NAME} or ${file:/path} here."
    )
    assert complaint('[ingest]\nhook_secret = "${vault:A}"') == f"ingest.hook_secret in neurogate.toml {words}"
    assert complaint('[[integrations]]\ntype = "${vault:A}"\nname = "x"') == (
        f"integrations[x].type in neurogate.toml {words}"
    )
    assert complaint("", {"NEUROGATE_MQTT__HOST": "${vault:A}"}) == f"mqtt.host in NEUROGATE_MQTT__HOST {words}"
    assert complaint(NAMED + 'url = "${vault:a b}"') == (
        "integrations[api].url in neurogate.toml uses ${vault:a b}, but no secret can have this name."
        " neurogate secrets list shows the names."
    )


def test_a_missing_reference_is_the_only_problem_of_its_key() -> None:
    assert complaint('[mqtt]\nport = "${env:NOPE}"') == (
        "mqtt.port in neurogate.toml uses ${env:NOPE}, which is not set. Set the environment variable NOPE."
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as missing:
        load(Path("other.toml"), {})
    assert str(missing.value) == (
        "There is no configuration file other.toml."
        " Correct --config or NEUROGATE_CONFIG, or write one with: neurogate init"
    )
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        load(tmp_path, {})
    Path("latin.toml").write_bytes(b'[mqtt]\nhost = "\xe9"')
    with pytest.raises(ConfigError) as encoded:
        load(Path("latin.toml"), {})
    assert str(encoded.value) == "latin.toml is not UTF-8 text (byte 15). Save it as UTF-8."


def test_all_problems_are_told_at_once() -> None:
    assert complaint("[mqtt]\nprot = 1\nport = 70000", {"NEUROGATE_HTTP__PROT": "1"}) == (
        "The configuration has 3 problems:\n"
        "- Unknown setting NEUROGATE_HTTP__PROT in the environment. Did you mean NEUROGATE_HTTP__PORT?\n"
        "- mqtt.port in neurogate.toml must be at most 65535, not 70000.\n"
        "- Unknown key mqtt.prot in neurogate.toml. Did you mean mqtt.port?"
    )


def test_a_substituted_value_is_never_repeated() -> None:
    assert complaint('[mqtt]\nport = "${env:X}"', {"X": "hunter2"}) == (
        "mqtt.port in neurogate.toml (from ${env:X}) must be a whole number."
    )


def test_credentials_in_an_address_are_never_repeated() -> None:
    assert "hunter2" not in complaint('[gateway]\nid = "mqtt://me:hunter2@host"')
