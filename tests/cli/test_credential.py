"""`neurogate credential`: the same whether a gateway runs or not, and what it prints."""

import pytest

from tests.cli.test_gateway_link import is_closed
from tests.gateway_process import GatewayProcess


@pytest.fixture(params=["running", "not running"])
def any_site(request: pytest.FixtureRequest, own_site: GatewayProcess) -> GatewayProcess:
    if request.param == "running":
        own_site.start()
    return own_site


def test_a_credential_is_added_shown_listed_rotated_and_revoked(any_site: GatewayProcess) -> None:
    added = any_site.json("credential", "add", "hub", "--organization", "acme")
    assert (added["username"], added["organization_id"]) == ("hub@acme", "acme")
    home = any_site.json("credential", "add", "home", "--organization", "acme", "--home-assistant")["username"]
    tool = any_site.json("credential", "add", "tool", "--site")
    assert tool["organization_id"] is None
    any_site.json("device", "add", "kitchen")
    listed = {one["username"]: one for one in any_site.json("credential", "list")}
    assert sorted(listed) == ["default/kitchen", "home@acme", "hub@acme", "tool"]
    assert listed[home]["subscribe"] == ["homeassistant/#", "neurogate/#"]
    assert listed[home]["publish"] == ["homeassistant/status"]
    assert (listed["default/kitchen"]["device_id"], listed["hub@acme"]["device_id"]) == ("kitchen", None)
    of_devices = ["neurobuild/sensors/#", "org_acme/devices/#", "devices/#"]
    assert listed["hub@acme"]["subscribe"] == [*of_devices, "homeassistant/#", "neurogate/#"]
    assert listed["tool"]["subscribe"] == ["#", "$SYS/#"]
    assert (listed["hub@acme"]["connections"], listed["hub@acme"]["last_connected_at"]) == (0, None)
    rotated = any_site.json("credential", "rotate", "hub@acme")
    assert rotated["password"] not in (added["password"], "")
    left_s = any_site.json("credential", "show", "hub@acme")["old_password_left_s"]
    assert 86_000 < left_s <= 86_400
    rotated = any_site.json("credential", "rotate", "default/kitchen", "--overlap-h", "0")
    assert rotated["username"] == "default/kitchen"
    for username in ("hub@acme", "default/kitchen"):
        words = f"{username} has no access any more.\n"
        assert any_site.neurogate("credential", "revoke", username).stdout == words
    assert [one["username"] for one in any_site.json("credential", "list")] == ["tool", "home@acme"]
    assert [one["status"] for one in any_site.json("device", "list")] == ["revoked"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "a/b"), "Error: 'a/b' cannot be a credential id"),
        (("add", "hub"), "Error: There is a credential hub@default already.\nChoose another name"),
        (("add", "x", "--site", "--organization", "y"), "Error: A credential of the site has no organisation.\nUse"),
        (("show", "nobody"), "Error: There is no credential nobody.\nneurogate credential list"),
        (("rotate", "nobody"), "Error: There is no credential nobody.\nneurogate credential list"),
        (("revoke", "nobody"), "Error: There is no credential nobody.\nneurogate credential list"),
    ],
)
def test_an_error_says_what_to_do(own_site: GatewayProcess, arguments: tuple[str, ...], words: str) -> None:
    own_site.json("credential", "add", "hub")
    done = own_site.neurogate("credential", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(words)


def test_what_a_person_reads(own_site: GatewayProcess) -> None:
    added = own_site.neurogate("credential", "add", "hub").stdout.splitlines()
    assert added[0] == "username  hub@default"
    password = added[1].split()[1]
    own_site.neurogate("credential", "rotate", "hub@default", "--overlap-h", "1.5")
    shown = own_site.neurogate("credential", "show", "hub@default").stdout
    for words in ("publishes     devices/#", "subscribes    org_default/devices/#", "good for another 1.5 h", "never"):
        assert words in shown
    listed = own_site.neurogate("credential", "list").stdout
    assert "hub@default" in listed
    assert password not in shown + listed


def test_passwords_overlap_and_revoke_ends_both(own_site: GatewayProcess) -> None:
    own_site.start()
    old = own_site.json("credential", "add", "hub")
    with own_site.mqtt("hub@default", old["password"]) as session:
        new = own_site.json("credential", "rotate", "hub@default")
        assert not is_closed(session)
    own_site.mqtt("hub@default", new["password"]).close()
    with own_site.mqtt("hub@default", old["password"]) as session:
        own_site.neurogate("credential", "revoke", "hub@default")
        assert is_closed(session)
    for password in (old["password"], new["password"]):
        with pytest.raises(ConnectionRefusedError):
            own_site.mqtt("hub@default", password)


def test_statistics_are_there_after_the_gateway_has_stopped(own_site: GatewayProcess) -> None:
    own_site.start()
    hub = own_site.json("credential", "add", "hub")
    own_site.mqtt("hub@default", hub["password"]).close()
    with pytest.raises(ConnectionRefusedError):
        own_site.mqtt("hub@default", "wrong")
    running = own_site.json("credential", "show", "hub@default")
    assert (running["connections"], running["refused_logins"]) == (1, 1)
    own_site.mqtt("hub@default", hub["password"]).close()
    own_site.stop()
    stopped = own_site.json("credential", "show", "hub@default")
    assert (stopped["connections"], stopped["refused_logins"]) == (2, 1)
