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

    DISK = "disk"
    """Too much of all clients waits for the disk."""

    @property
    def is_counted(self) -> bool:
        """Whether it says something about a client, or the disk."""
        return self in (Hold.INFLIGHT, Hold.RATE, Hold.DISK)
