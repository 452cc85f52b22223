"""What a setting may name another machine by: a host name, an address, or a network of addresses."""

import re
from ipaddress import ip_address, ip_network

_HOST_NAME = re.compile(r"(?=.*[a-z])[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?", re.IGNORECASE)


def is_host_name(text: str) -> bool:
    """Whether it is a name, with at least one letter: no address."""
    return _HOST_NAME.fullmatch(text) is not None


def is_address(text: str) -> bool:
    """Whether it is an address, IPv4 or IPv6."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_network(text: str, *, strict: bool = True) -> bool:
    """Whether it is an address or a network such as `10.1.0.0/16`; `strict`: with no bit set behind its prefix."""
    try:
        ip_network(text, strict=strict)
    except ValueError:
        return False
    return True
