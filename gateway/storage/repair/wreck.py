"""What can be read of a damaged database, table by table.

- rows come with their own ids, in the order of their ids
- where a part of a table's tree is broken, every page of the file is looked at, once for all tables, and a record's
  form tells whose it is
- an interned text (a stream, a device's metadata) is also looked for in the index of its unique key, so that one lost
  page does not cost all the readings that refer to it

A table is known by the schema of today, taken from a sound database made by the same release. Where the damaged one has
lost its list of tables, they are looked for where a database of this release has them.

It does not: bring back erased rows on purpose; after damage to the tree, a row erased shortly before may return.
"""

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from heapq import merge
from pathlib import Path

from gateway.storage.repair.sqlite_file import Leaf, SqliteFile, Unreadable, Value, Walk

_TYPES: dict[str, tuple[type, ...]] = {"INTEGER": (int,), "TEXT": (str,), "BLOB": (bytes,), "REAL": (float, int)}
_ROWS = (-(2**63), 2**63 - 1)
_SEQUENCE = "sqlite_sequence"  # SQLite's own: the highest id that each AUTOINCREMENT table has ever had

Row = tuple[Value, ...]


@dataclass(slots=True)
class Table:
    """A table, as its records have it."""

    name: str
    columns: tuple[str, ...]
    stored: tuple[int, ...]
    """The columns in the order of a record: a table WITHOUT ROWID has its key first."""
    types: tuple[tuple[type, ...], ...]
    """What each column may hold."""
    id_column: int | None
    """The column that is the row's id, which its record leaves empty."""
    has_rows: bool
    """False for a table WITHOUT ROWID."""
    root: int
    unique_index: tuple[int, tuple[int, ...]] | None = None
    """The root of a UNIQUE constraint's index, and its columns: its entries end with the row's id."""
    _fits: dict[tuple[type, ...], bool] = field(default_factory=dict)

    def row(self, row: int, values: Sequence[Value]) -> Row | None:
        """Return a record's values in the order of `columns`; None when it cannot be this table's."""
        if len(values) != len(self.columns):
            return None
        ordered = [values[place] for place in self.stored]
        if self.id_column is not None:
            if ordered[self.id_column] is not None:
                return None
            ordered[self.id_column] = row
        kinds = tuple(map(type, ordered))
        fits = self._fits.get(kinds)
        if fits is None:
            fits = all(kind in allowed for kind, allowed in zip(kinds, self.types, strict=True))
            self._fits[kinds] = fits
        return tuple(ordered) if fits else None


def tables(db: sqlite3.Connection) -> dict[str, Table]:
    """Return the tables of a sound database."""
    roots = dict(db.execute("SELECT name, rootpage FROM sqlite_schema").fetchall())
    listed = db.execute("SELECT name, wr FROM pragma_table_list WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
    found = {name: _table(db, name, bool(without_rowid), roots) for name, without_rowid in listed.fetchall()}
    if _SEQUENCE in roots:
        found[_SEQUENCE] = Table(
            _SEQUENCE, ("name", "seq"), (0, 1), ((str,), (int,)), None, has_rows=True, root=roots[_SEQUENCE]
        )
    return found


def _table(db: sqlite3.Connection, name: str, without_rowid: bool, roots: dict[str, int]) -> Table:
    info = db.execute(
        'SELECT name, type, "notnull", pk FROM pragma_table_info(?) WHERE pk >= 0 ORDER BY cid', (name,)
    ).fetchall()
    names = tuple(column for column, *_ in info)
    keys = sorted((pk, place) for place, (*_, pk) in enumerate(info) if pk)
    id_column = keys[0][1] if len(keys) == 1 and not without_rowid and info[keys[0][1]][1] == "INTEGER" else None
    order = list(range(len(names)))
    if without_rowid:
        first = [place for _, place in keys]
        order = first + [place for place in order if place not in first]
    types = tuple(
        _TYPES[kind] + (() if notnull or place == id_column or (pk and without_rowid) else (type(None),))
        for place, (_, kind, notnull, pk) in enumerate(info)
    )
    stored = tuple(order.index(place) for place in range(len(names)))
    unique = db.execute("SELECT name FROM pragma_index_list(?) WHERE origin = 'u'", (name,)).fetchone()
    index = None
    if unique and not without_rowid:
        columns = db.execute("SELECT cid FROM pragma_index_info(?) ORDER BY seqno", unique).fetchall()
        index = (roots[unique[0]], tuple(cid for (cid,) in columns))
    return Table(name, names, stored, types, id_column, not without_rowid, roots[name], index)


class Wreck(AbstractContextManager["Wreck"]):
    """A damaged database. Reading blocks: it is for a thread."""

    def __init__(self, path: Path, known: dict[str, Table], checkpoint: Callable[[], None] = lambda: None) -> None:
        """Open it, and find its tables. Raises OSError when the file may not be read.

        `checkpoint` is called for each page that is read, and may raise.
        """
        self._file = SqliteFile(path, checkpoint)
        self.tables = known
        try:
            self._roots = {name: table.root for name, table in known.items()} | self._listed()
        except BaseException:
            self._file.__exit__(None, None, None)
            raise
        self.lost: set[str] = set()
        """Tables of which something could not be read, but for what is counted below."""
        self.unreadable_rows = 0
        self.unreadable_pages = 0
        self._strays: dict[str, list[tuple[int, Leaf]]] | None = None
        """By table, what its tree has lost; None until every page has been looked at."""

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self._file.__exit__(*exc)

    def _listed(self) -> dict[str, int]:
        """Return the roots of all tables and indexes in the database's own list, as far as it can be read."""
        roots: dict[str, int] = {}
        for leaf in self._file.leaves(1, Walk(self._file.pages)):
            try:
                for _, values in self._file.rows(leaf):
                    match values:
                        case ["table", str(name), _, int(root), *_]:
                            roots[name] = root
                        case _:
                            continue
            except Unreadable:
                continue
        return roots

    def all(self, name: str) -> list[Row]:
        """Return a small table: what can be reached without looking at every page."""
        table, root, walk = self.tables[name], self._roots[name], Walk(self._file.pages)
        if table.has_rows:
            found = [row for leaf in self._file.leaves(root, walk) for row in self._rows(table, leaf)]
        else:
            entries = [table.row(0, values) for values in self._file.entries(root, walk)]
            found = [row for row in entries if row is not None]
            walk.holes += len(entries) - len(found)
        if walk.holes:
            self.lost.add(name)
        if table.id_column is None:
            return found
        rows = {row[table.id_column]: row for row in found}
        if table.unique_index is not None:
            for row in self._from_index(table, *table.unique_index):
                rows.setdefault(row[0], row)
        return list(rows.values())

    def _from_index(self, table: Table, root: int, columns: tuple[int, ...]) -> Iterator[Row]:
        """Rebuild rows from the index of a unique key that covers all columns but the id."""
        assert table.id_column is not None
        if len(columns) != len(table.columns) - 1:
            return
        for values in self._file.entries(root, Walk(self._file.pages)):
            row_id = values[-1]
            if len(values) == len(table.columns) and isinstance(row_id, int):
                by_column: list[Value] = [None] * len(table.columns)
                for place, value in zip(columns, values, strict=False):
                    by_column[place] = value
                row = table.row(row_id, by_column)
                if row is not None:
                    yield row

    def highest(self, name: str) -> int | None:
        """Return the highest id that a table is known to have had; None when nothing tells."""
        table = self.tables[name]
        ids = [int(seq) for of, seq in self.all(_SEQUENCE) if of == name and isinstance(seq, int)]
        for leaf in deque(self._file.leaves(self._roots[name], Walk(self._file.pages)), maxlen=1):
            ids += [row[0] for row in self._rows(table, leaf) if isinstance(row[0], int)]
        return max(ids, default=None)

    def rows(self, name: str, *, after: int, until: int, passed: Callable[[], int] = lambda: _ROWS[0]) -> Iterator[Row]:
        """Yield a big table's rows with `after` < id <= `until`, in order; counts what it has to leave out.

        Rows up to what `passed` says by the time are not wanted any more, and their pages not read.
        """
        table, root = self.tables[name], self._roots[name]
        leaves: Iterator[tuple[int, Leaf]] = (
            (leaf.low, leaf) for leaf in self._file.leaves(root, Walk(self._file.pages))
        )
        if self._walk(name).holes:
            leaves = merge(leaves, self._lost_by_trees()[name])
        for _, leaf in leaves:
            first = max(after, passed())
            if leaf.high > first and leaf.low < until:
                for row in self._rows(table, leaf._replace(low=max(leaf.low, first)), count=True):
                    if int(row[0] or 0) <= until:
                        yield row

    def _walk(self, name: str) -> Walk:
        walk = Walk(self._file.pages)
        deque(self._file.leaves(self._roots[name], walk), maxlen=0)
        return walk

    def _lost_by_trees(self) -> dict[str, list[tuple[int, Leaf]]]:
        """Find the leaf pages that trees have lost, by the form of their records; in the order of their rows."""
        if self._strays is None:
            walks = {name: self._walk(name) for name, table in self.tables.items() if table.has_rows}
            walks = {name: walk for name, walk in walks.items() if walk.holes}
            strays: dict[str, list[tuple[int, Leaf]]] = {name: [] for name in walks}
            for page in self._file.scan(*walks.values()):
                try:
                    records = list(self._file.rows(Leaf(page, *_ROWS)))
                except Unreadable:
                    continue
                for name, walk in walks.items():
                    if not walk.reached[page]:
                        strays[name] += _stray(self.tables[name], page, records)
            for found in strays.values():
                found.sort()
            self._strays = strays
        return self._strays

    def _rows(self, table: Table, leaf: Leaf, *, count: bool = False) -> Iterator[Row]:
        try:
            for row_id, values in self._file.rows(leaf):
                row = None if values is None else table.row(row_id, values)
                if row is not None:
                    yield row
                elif count:
                    self.unreadable_rows += 1
                else:
                    self.lost.add(table.name)
        except Unreadable:
            if count:
                self.unreadable_pages += 1
            else:
                self.lost.add(table.name)


def _stray(table: Table, page: int, records: list[tuple[int, list[Value] | None]]) -> list[tuple[int, Leaf]]:
    """Return the page as a leaf of the table, if it holds rows of it."""
    rows = [row for row_id, values in records if values is not None and (row := table.row(row_id, values)) is not None]
    if not rows:
        return []
    first, last = int(rows[0][0] or 0), int(rows[-1][0] or 0)
    return [(first - 1, Leaf(page, first - 1, last))]
