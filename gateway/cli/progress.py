"""How far a long job is: a bar on a terminal; elsewhere a line now and then, so that a log stays readable."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress

_PLAIN_EVERY_PERCENT = 25


class ProgressShown:
    """Shows progress on standard error while it is entered. `unit` names what is counted, in the plural."""

    def __init__(self, title: str, unit: str, *, console: Console | None = None) -> None:
        self._title = title
        self._unit = unit
        self._console = console or Console(stderr=True)
        self._bar = Progress(console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task(title, total=None)
        self._shown = -1

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, traceback)

    def update(self, done: int, total: int) -> None:
        """Say that so many of so many are done."""
        self._bar.update(self._task, completed=done, total=max(total, 1))
        quarter = 100 * done // max(total, 1) // _PLAIN_EVERY_PERCENT
        if not self._console.is_terminal and quarter > self._shown:
            self._shown = quarter
            print(f"{self._title}: {done:,} of {total:,} {self._unit}", file=sys.stderr, flush=True)
