"""How long the answer to a failed login waits: the longer, the more often its address or username has failed.

- only failures wait. A right password is let in at once, however many others were wrong: nobody locks a board out by
  guessing its password, not even from its own address (behind a proxy or a NAT, all boards have one). What keeps a
  password from being guessed is its 192 random bits; the delay is against boards that try the same wrong one without
  end, against the noise of scanners, and for passwords' sake only as a second line
- a failure is forgotten when nothing failed there for a while; a success forgets nothing, or an attacker with a
  password of his own could wipe his slate
- only so many wait at once, half of them of one address: whoever waits holds a connection, and boards need some. The
  answer to one beyond does not wait
- what is remembered is bounded; who failed longest ago is forgotten first
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import AddressValueError, IPv6Address

from gateway.clock import Clock

FIRST_S = 0.1
LONGEST_S = 5.0
_FORGOTTEN_AFTER_MS = 15 * 60 * 1000
_REMEMBERED = 10_000


class LoginDelay:
    """See the module's own words."""

    def __init__(self, clock: Clock, *, waiting_at_most: int) -> None:
        self._clock = clock
        self._waiting_at_most = waiting_at_most
        self._failures: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()
        """How often, and when last (monotonic), by what and who."""
        self._waiting: Counter[str] = Counter()

    @contextmanager
    def failed(self, address: str, username: str | None) -> Iterator[float]:
        """Count a failed login, with the username if it is somebody's; yield how long its answer is to wait (s)."""
        source = network_of(address)
        failures = self._count(("address", source))
        if username is not None:
            failures = max(failures, self._count(("username", username)))
        most = self._waiting_at_most
        if self._waiting[source] >= max(1, most // 2) or self._waiting.total() >= most:
            yield 0.0
            return
        self._waiting[source] += 1
        try:
            yield min(LONGEST_S, FIRST_S * 2.0 ** min(failures - 1, 20))
        finally:
            self._waiting[source] -= 1
            if not self._waiting[source]:
                del self._waiting[source]

    def failing(self) -> dict[str, int]:
        """Return how often logins from each address have failed lately."""
        now = self._clock.monotonic_ms()
        return {
            who: failures
            for (kind, who), (failures, last) in self._failures.items()
            if kind == "address" and now - last < _FORGOTTEN_AFTER_MS
        }

    def _count(self, key: tuple[str, str]) -> int:
        now = self._clock.monotonic_ms()
        failures, last = self._failures.pop(key, (0, now))
        if now - last >= _FORGOTTEN_AFTER_MS:
            failures = 0
        self._failures[key] = (failures + 1, now)
        if len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)
        return failures + 1


def network_of(address: str) -> str:
    """Return who an address belongs to: whoever has one IPv6 address has the 2^64 of its network."""
    if ":" not in address:
        return address
    try:
        parsed = IPv6Address(address.partition("%")[0])
    except AddressValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
