"""`neurogate token`: the same whether a gateway runs or not, and what it prints."""

import pytest

from tests.gateway_process import GatewayProcess


@pytest.mark.parametrize("is_running", [True, False])
def test_a_token_is_created_listed_and_revoked(own_site: GatewayProcess, is_running: bool) -> None:
    if is_running:
        own_site.start()
    new = own_site.json("token", "create", "alice", "--role", "admin", "--organization", "acme")
    assert (new["name"], new["organization_id"], new["role"]) == ("alice", "acme", "admin")
    assert new["token"].startswith("ngt_")
    assert len(new["token"]) == 36
    by_default = own_site.json("token", "create", "screen@hall")
    assert (by_default["organization_id"], by_default["role"]) == ("default", "member")
    listed = own_site.json("token", "list")
    assert [(one["name"], one["role"]) for one in listed] == [("alice", "admin"), ("screen@hall", "member")]
    assert new["token"] not in str(listed)
    assert own_site.neurogate("token", "revoke", "alice").stdout == "alice opens nothing any more.\n"
    assert [one["name"] for one in own_site.json("token", "list")] == ["screen@hall"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", "a/b"), "Error: 'a/b' cannot be the name of a token.\nUse letters"),
        (("create", "alice"), "Error: There is a token alice already.\nChoose another name"),
        (
            ("create", "bob", "--role", "king"),
            "Error: There is no role king.\nUse one of: owner, admin, member, device.",
        ),
        (("create", "bob", "--organization", "a/b"), "Error: 'a/b' cannot be a organization id"),
        (("revoke", "nobody"), "Error: There is no token nobody.\nneurogate token list"),
    ],
)
def test_an_error_says_what_to_do(own_site: GatewayProcess, arguments: tuple[str, ...], words: str) -> None:
    own_site.json("token", "create", "alice")
    done = own_site.neurogate("token", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(words)


def test_what_a_person_reads(own_site: GatewayProcess) -> None:
    created = own_site.neurogate("token", "create", "alice", "--role", "owner").stdout.splitlines()
    assert created[0] == "name   alice, owner of default"
    token = created[1].split()[1]
    listed = own_site.neurogate("token", "list").stdout
    assert "alice" in listed
    assert token not in listed
