"""What the holder of a token may do over HTTP, in the organisation that the token is bound to."""

from typing import Literal, get_args

Role = Literal["owner", "admin", "member", "device"]
ROLES: tuple[Role, ...] = get_args(Role)

_CHANGES: frozenset[Role] = frozenset({"owner", "admin"})
_READS: frozenset[Role] = _CHANGES | {"member"}
_HANDS_IN: frozenset[Role] = _CHANGES | {"device"}


def may_change(role: Role) -> bool:
    """Whether it may create, change and delete, and speak to devices."""
    return role in _CHANGES


def may_read(role: Role) -> bool:
    """Whether it may look at what there is. A device's token may do neither: it only hands in readings."""
    return role in _READS


def may_hand_in(role: Role) -> bool:
    """Whether it may hand in what devices say."""
    return role in _HANDS_IN


def may_grant(role: Role, other: Role) -> bool:
    """Whether it may give or take away a token of another role, in the same organisation: only an owner an owner's."""
    return may_change(role) and (role == "owner" or other != "owner")
