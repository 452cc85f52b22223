"""Tables of commands. What is in one may come from anywhere, so nothing of it is read as markup."""

from collections.abc import Iterable, Sequence

_ID_WIDTH = 36


def show_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    with_uuids: bool = False,
    width: int | None = None,
    soft_wrap: bool = False,
) -> None:
    """Print a table; if `with_uuids`, what stands below `id` is never broken. `width` is the terminal's if None."""
    from rich.console import Console  # noqa: PLC0415 - takes its time, and with --json nobody needs it
    from rich.table import Column, Table  # noqa: PLC0415 - the same
    from rich.text import Text  # noqa: PLC0415 - the same

    table = Table(
        *(Column(name, no_wrap=True, min_width=_ID_WIDTH) if with_uuids and name == "id" else name for name in columns),
        box=None,
    )
    for row in rows:
        table.add_row(*map(Text, row))
    Console(width=width, soft_wrap=soft_wrap).print(table)
