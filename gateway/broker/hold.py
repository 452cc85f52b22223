"""Why a client's packets wait, and its socket is not read meanwhile: then TCP makes the client wait."""

from enum import Enum


class Hold(Enum):
    """One reason; there may be several at a time."""

    LOGIN = "login"
    """Its CONNECT is looked at: what follows it waits for the answer."""
    TURN = "turn"
    """It has had its turn, and others have theirs."""
    INFLIGHT = "inflight"
    """Too much of it is unacknowledged."""
    RATE = "rate"
    """It has sent too many packets in the last second."""

    @property
    def is_its_own_doing(self) -> bool:
        """Whether it is worth counting."""
        return self in (Hold.INFLIGHT, Hold.RATE)
