"""Tables of commands. What is in one may come from anywhere, so nothing of it is read as markup."""

import sys
from collections.abc import Iterable, Sequence

_ID_WIDTH = 36
_WITHOUT_A_TERMINAL = 1_000


def show_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    with_uuids: bool = False,
    width: int | None = None,
) -> None:
    """Print a table; if `with_uuids`, what stands below `id` is never broken.

    `width` is the terminal's if None. Where there is none, as for a pipe, nothing is cut off.
    """
    from rich.console import Console  # noqa: PLC0415 - takes its time, and with --json nobody needs it
    from rich.table import Column, Table  # noqa: PLC0415 - the same
    from rich.text import Text  # noqa: PLC0415 - the same

    table = Table(
        *(Column(name, no_wrap=True, min_width=_ID_WIDTH) if with_uuids and name == "id" else name for name in columns),
        box=None,
    )
    for row in rows:
        table.add_row(*map(Text, row))
    if width is None and not sys.stdout.isatty():
        width = _WITHOUT_A_TERMINAL
    Console(width=width).print(table)


def one_line(text: str) -> str:
    """Make words from outside safe for a terminal: what is no printable character becomes a space."""
    return "".join(character if character.isprintable() else " " for character in text)
