"""`neurogate secrets`: the same whether a gateway runs or not, and never a value on the screen or among arguments."""

import json
import os
import pty
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command_line import neurogate
from tests.gateway_here import GatewayHere
from tests.gateway_process import WAIT_S

VALUE = "planted-kitchen-table-4711"
TABLES = """
[[integrations]]
type = "webhook"
name = "api"
url = "https://receiver.invalid/${vault:PATH}"
secret = "${vault:SIGN}"
"""


class Vaults(GatewayHere):
    """A site whose integration names two secrets."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        with (folder / "neurogate.toml").open("a") as config:
            config.write(TABLES)

    def put(self, name: str, value: bytes) -> tuple[int, str, str]:
        done = neurogate("secrets", "set", name, folder=self.folder, typed=value)
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Vaults]:
    site = Vaults(tmp_path)
    yield site
    site.kill()


@pytest.mark.parametrize("is_running", [True, False])
def test_secrets_are_set_listed_rotated_and_removed(site: Vaults, is_running: bool) -> None:
    if is_running:
        site.start()
    assert site.json("secrets", "list") == {"secrets": [], "missing": ["PATH", "SIGN"]}
    code, out, err = site.put("SIGN", f"{VALUE}\n".encode())
    assert (code, err) == (0, "")
    assert out == "SIGN is in the vault. A gateway that runs notices it when it is restarted (api).\n"
    assert site.put("other", VALUE.encode())[1] == (
        "other is in the vault. No integration names it yet: ${vault:other}.\n"
    )
    listed = site.json("secrets", "list")
    assert listed["missing"] == ["PATH"]
    assert [(one["name"], one["used_by"], one["unreadable"]) for one in listed["secrets"]] == [
        ("SIGN", ["api"], ""),
        ("other", [], ""),
    ]
    (key,) = site.data_dir.glob("vault-*.key")
    assert site.neurogate("secrets", "rotate").stdout == (
        "Encrypted with a new key: 2. Backups made before hold the old one.\n"
    )
    assert not key.exists()
    assert site.neurogate("secrets", "remove", "other").stdout.startswith("other is gone.")
    shown = site.neurogate("secrets", "list").stdout
    assert "not set: neurogate secrets set PATH" in shown
    assert VALUE not in shown
    if is_running:
        site.stop()
    assert not any(VALUE.encode() in file.read_bytes() for file in site.data_dir.iterdir() if file.is_file())


def test_a_terminal_is_asked_twice_and_shows_nothing(site: Vaults) -> None:
    ours, theirs = pty.openpty()
    process = site.popen("secrets", "set", "SIGN", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    for prompt in (b"Value: ", b"Repeat for confirmation: "):
        while prompt not in shown:
            shown += os.read(ours, 1_000)
        os.write(ours, f"{VALUE}\n".encode())
    while b"SIGN is in the vault" not in shown:
        shown += os.read(ours, 1_000)
    assert process.wait(WAIT_S) == 0
    os.close(ours)
    assert VALUE.encode() not in shown


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("a b", b"x", "Error: 'a b' cannot be the name of a secret.\nUse letters"),
        ("a", b"", "Error: A secret has 1 to 65,536 bytes, not 0.\n"),
        ("a", b"x" * 70_000, "Error: A secret has 1 to 65,536 bytes, not 65,538.\n"),
        ("a", b"\xff", "Error: The value is not UTF-8 text.\n"),
    ],
)
def test_an_error_says_what_to_do(site: Vaults, name: str, value: bytes, words: str) -> None:
    code, out, err = site.put(name, value)
    assert (code, out) == (1, "")
    assert err.startswith(words)


def test_a_key_that_others_may_read_is_refused(site: Vaults) -> None:
    site.put("a", b"x")
    (key,) = site.data_dir.glob("vault-*.key")
    assert f"ok      vault's keys: {key}" in site.neurogate("check").stdout
    key.chmod(0o644)
    code, _, err = site.put("a", b"y")
    assert (code, err) == (78, f"Error: Others may read {key} (mode 0644).\nRun: chmod 600 {key}\n")
    checked = site.neurogate("check")
    assert (checked.returncode, f"Run: chmod 600 {key}" in checked.stderr) == (78, True)


def test_check_warns_of_what_is_not_in_the_vault(site: Vaults) -> None:
    words = "WARNING integration api: {}: not in the vault, so it would not be started. Put in: {}\n"
    both = words.format("PATH, SIGN", "neurogate secrets set PATH; neurogate secrets set SIGN")
    checked = site.neurogate("check")  # before there is a vault at all
    assert (checked.returncode, checked.stderr) == (0, both)
    site.put("PATH", b"x")
    assert site.neurogate("check").stderr == words.format("SIGN", "neurogate secrets set SIGN")
    config = site.folder / "neurogate.toml"
    active = config.read_text()
    config.write_text(active + 'status = "inactive"\n')
    assert site.neurogate("check").stderr == ""
    config.write_text(active)
    site.put("SIGN", b"y")
    checked = site.neurogate("check")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "ok      integration api: webhook (from the vault, at the start: PATH, SIGN; see" in checked.stdout
    site.data_dir.joinpath("state.db").write_bytes(b"no database" * 99)
    assert "integration api" not in site.neurogate("check").stderr  # what is not known is not said


def test_config_show_does_without_the_vault(site: Vaults) -> None:
    shown = site.json("config", "show", "--origin")
    assert shown["integrations[api].secret"] == {
        "value": "********",
        "origin": "file neurogate.toml (from ${vault:SIGN})",
    }
    assert shown["integrations[api].url"]["value"] == "********"
    assert shown["integrations[api].method"]["value"] == "POST"


def test_a_backup_has_the_key_and_a_restored_gateway_reads_its_secrets(site: Vaults, tmp_path: Path) -> None:
    site.start()
    site.put("SIGN", VALUE.encode())
    site.put("PATH", b"somewhere")
    (tmp_path / "passphrase").write_text("correct horse\n")
    options = ("--passphrase-file", str(tmp_path / "passphrase"))
    assert site.neurogate("backup", str(tmp_path / "b"), *options).returncode == 0
    site.neurogate("secrets", "rotate")
    site.stop()
    new = tmp_path / "new"
    done = site.neurogate("restore", str(tmp_path / "b"), "-c", str(new / "neurogate.toml"), *options)
    assert done.returncode == 0, done.stderr
    listed = json.loads(site.neurogate("secrets", "list", "--json", "-c", str(new / "neurogate.toml")).stdout)
    assert [(one["name"], one["unreadable"]) for one in listed["secrets"]] == [("PATH", ""), ("SIGN", "")]
    assert [key.stat().st_mode & 0o777 for key in (new / "data").glob("vault-*.key")] == [0o600]


@pytest.mark.parametrize(
    "value", [(VALUE,), (f"--{VALUE}",), (f"-{VALUE}",), ("--value", VALUE), (f"--value={VALUE}",)]
)
def test_a_value_among_the_arguments_is_refused_and_not_repeated(site: Vaults, value: tuple[str, ...]) -> None:
    done = site.neurogate("secrets", "set", "SIGN", *value)
    assert done.returncode == 2
    assert "standard input" in done.stderr
    assert VALUE not in done.stdout + done.stderr
    assert site.json("secrets", "list")["secrets"] == []
