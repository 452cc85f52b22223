"""Where the gateway may connect to, address by address."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.egress import Egress
from gateway.config import EgressSettings

PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1", "2002:101:101::1"]
LAN = ["10.0.0.7", "172.16.9.9", "192.168.1.2", "100.64.0.1", "fd12:3456::1", "::ffff:192.168.1.2", "2002:c0a8:102::1"]
NEITHER = [
    *("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::127.0.0.1", "64:ff9b::127.0.0.1"),
    *("0.0.0.0", "::", "169.254.1.1", "fe80::1", "fe80::1%eth0", "fec0::1", "2002:7f00:1::1", "2001:0:7f00:1::"),
    *("169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fd00:ec2::254", "100.100.100.200"),
    *("168.63.129.16", "192.0.0.192", "224.0.0.1", "ff02::1", "255.255.255.255", "240.0.0.1", "64:ff9b:1::1"),
]


def egress(policy: str, *allow: str) -> Egress:
    return Egress(EgressSettings.model_validate({"policy": policy, "allow": allow}))


@pytest.mark.parametrize("address", PUBLIC)
def test_the_internet_is_always_allowed(address: str) -> None:
    assert [egress(policy).allows(address, address) for policy in ("public", "lan", "any")] == [True, True, True]


@pytest.mark.parametrize("address", LAN)
def test_private_networks_are_allowed_unless_only_the_internet_is(address: str) -> None:
    assert [egress(policy).allows(address, address) for policy in ("public", "lan", "any")] == [False, True, True]


@pytest.mark.parametrize("address", NEITHER)
def test_this_machine_its_links_and_cloud_metadata_are_allowed_only_by_any(address: str) -> None:
    assert [egress(policy).allows("name", address) for policy in ("public", "lan", "any")] == [False, False, True]


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_inside_an_ipv6_one_is_judged_alike(address: object) -> None:
    for policy in ("public", "lan"):
        alone = egress(policy).allows("name", str(address))
        for written in (f"::ffff:{address}", f"64:ff9b::{address}"):
            assert egress(policy).allows("name", written) == alone


def test_by_default_the_lan_is_allowed_and_this_machine_is_not() -> None:
    default = Egress(EgressSettings())
    assert default.allows("nas.local", "192.168.1.2")
    assert not default.allows("nas.local", "127.0.0.1")


def test_an_allowed_network_and_an_allowed_name_are_exceptions() -> None:
    some = egress("public", "192.168.7.0/24", "127.0.0.1", "NAS.local", "169.254.169.254")
    assert some.allows("192.168.7.9", "192.168.7.9")
    assert some.allows("anything", "::ffff:127.0.0.1")
    assert some.allows("nas.local.", "10.1.1.1")
    assert some.allows("169.254.169.254", "169.254.169.254")
    assert not some.allows("192.168.8.9", "192.168.8.9")
    assert not some.allows("other.local", "10.1.1.1")
    assert not some.allows("evil.nas.local", "10.1.1.1")


@pytest.mark.parametrize(
    ("allow", "forbidden"),
    [
        ((), ["127.0.0.1", "[::1]", "localhost", "LOCALHOST.", "169.254.169.254"]),
        (("127.0.0.1",), ["[::1]", "169.254.169.254"]),  # localhost leads there, too
        (("localhost",), ["127.0.0.1", "[::1]", "169.254.169.254"]),
    ],
)
def test_what_can_never_be_connected_to_is_known_before(allow: tuple[str, ...], forbidden: list[str]) -> None:
    hosts = ["127.0.0.1", "[::1]", "localhost", "LOCALHOST.", "169.254.169.254", "10.0.0.7", "1.1.1.1", "api.local"]
    assert [host for host in hosts if egress("lan", *allow).certainly_forbids(host)] == forbidden
