"""How long to wait after a failed attempt."""

from collections.abc import Callable

from tenacity import RetryCallState
from tenacity.wait import wait_base, wait_exponential

from cloud_sync.contract import AuthFailed, Outcome, RetryAfter, WrongAddress

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 300.0


class Backoff(wait_base):
    """Exponential with full jitter, so that a thousand gateways do not return in the same second.

    A destination that asked for patience gets at least that. A wrong credential or address waits longest at
    once: only a person mends it, and some services lock out who knocks too often.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._window = wait_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S)

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the seconds to wait after the attempt that has just failed."""
        assert retry_state.outcome is not None
        outcome: Outcome = retry_state.outcome.result()
        backoff = self._random() * self._window(retry_state)
        match outcome:
            case AuthFailed() | WrongAddress():
                return LONGEST_WAIT_S
            case RetryAfter(seconds=float(asked)):
                return max(backoff, asked + self._random() * max(1.0, asked / 10))
            case _:
                return backoff
