"""How long to wait after a failed attempt."""

import math
from collections.abc import Callable

from tenacity import RetryCallState
from tenacity.wait import wait_base

from cloud_sync.contract import AuthFailed, Outcome, RetryAfter, WrongAddress

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 300.0

_DOUBLINGS = 10  # by then the longest wait is reached


class Backoff(wait_base):
    """Exponential with full jitter, so that a thousand gateways do not return in the same second.

    A destination that asked for patience gets at least that. A wrong credential or address waits longest at
    once: only a person mends it, and some services lock out who knocks too often.
    """

    def __init__(self, random: Callable[[], float], first_wait_s: float = FIRST_WAIT_S) -> None:
        self._random = random
        self._first_wait_s = first_wait_s

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the seconds to wait after the attempt that has just failed."""
        assert retry_state.outcome is not None
        return self.seconds(retry_state.outcome.result(), retry_state.attempt_number)

    def seconds(self, outcome: Outcome, failures: int) -> float:
        """Return the seconds to wait after the last of so many failures in a row."""
        backoff = self._random() * min(math.ldexp(self._first_wait_s, min(failures - 1, _DOUBLINGS)), LONGEST_WAIT_S)
        match outcome:
            case AuthFailed() | WrongAddress():
                return LONGEST_WAIT_S
            case RetryAfter(seconds=float(asked)):
                return max(backoff, asked + self._random() * max(1.0, asked / 10))
            case _:
                return backoff
