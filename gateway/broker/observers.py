"""Whoever hears what happens here without having a part in it: a fault of one is logged, and harms nobody else."""

import logging
from collections.abc import Callable
from typing import Generic, ParamSpec

from gateway.broker.seldom import Seldom

logger = logging.getLogger(__name__)

P = ParamSpec("P")


class Observers(Generic[P]):
    """Callables that are called one after the other; never raises."""

    def __init__(self, what: str, seldom: Seldom) -> None:
        """`what` they hear, in a few words for the log."""
        self._what = what
        self._seldom = seldom
        self._all: list[Callable[P, None]] = []

    def append(self, hear: Callable[P, None]) -> None:
        """Let one more hear."""
        self._all.append(hear)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Tell all of them."""
        for hear in self._all:
            try:
                hear(*args, **kwargs)
            except Exception:  # whatever it is, it is no fault of whom they listen to
                if self._seldom.is_due(self._what):
                    logger.exception("a part that hears %s has failed", self._what)
