"""How a running gateway does, beyond its status: what only its own process knows."""

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class LoginActivity:
    """How often a credential has logged in lately; see `RecentCount` for how long that is."""

    username: str
    logins: int
    refused: int
    """With a wrong password."""


@dataclass(slots=True, frozen=True)
class FailingAddress:
    """From where logins fail."""

    address: str
    """Of IPv6 the network."""
    failures: int
    """Since none has failed for a while."""


@dataclass(slots=True, frozen=True)
class Vitals:
    """One moment of the process."""

    pid: int
    clock_moved_ms: int
    """How far the wall clock has been set, against the monotonic one, since the gateway started."""
    open_files: int
    open_files_at_most: int
    memory_bytes: int
    """Resident; 0 where the system does not say."""
    logins: list[LoginActivity]
    """Of whoever has logged in, or tried to, lately."""
    failing_addresses: list[FailingAddress]
    metrics: str
    """As `/metrics` shows them."""


@dataclass(slots=True, frozen=True)
class Trace:
    """What the process has said lately, and what it does at this moment."""

    log: list[str]
    """The last lines, the oldest first; secrets are masked."""
    tasks: list[str]
    """Each with where it waits."""
    threads: list[str]
    """Each with its stack, without values."""
