"""Reads a SQLite database file without SQLite, so that what is intact around damage can be had.

- a page is the newest committed version in the write-ahead log, or the file's; damaged ones count as absent
- `leaves` walks a table's tree in row order and says which parts of it cannot be reached; `scan` finds those pages
- before every page the `checkpoint` of whoever reads is called: it may raise, and so end a look at a large file
- a record is returned only if its lengths, types and text are all as they should be

SQLite keeps no checksums: bytes that changed without breaking a record's form come back changed.
It does not: write anything, or know pages of a version that SQLite had not synced.

Format: https://www.sqlite.org/fileformat2.html
"""

import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from gateway.storage.repair.wal_file import read_wal

Value = None | int | float | str | bytes

MAGIC = b"SQLite format 3\0"
_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE = 2, 5, 10, 13
_INTERIOR = (_INTERIOR_INDEX, _INTERIOR_TABLE)
_KINDS = (*_INTERIOR, _LEAF_INDEX, _LEAF_TABLE)
_HEADER_BYTES = 100  # before the first page's own header
_DEFAULT_PAGE_BYTES = 4096
_PAGE_BYTES = tuple(2**exponent for exponent in range(9, 17))
_MOST_RECORD_BYTES = 2**26  # far beyond what a message may have: a length that is garbage
_INTEGER_BYTES = (0, 1, 2, 3, 4, 6, 8)
_FIRST, _LAST = -(2**63), 2**63 - 1


class Unreadable(Exception):
    """A page or record is not what it should be."""


class Stopped(Exception):
    """Whoever reads does not want to know any more; raised by a checkpoint."""


class Leaf(NamedTuple):
    """A table's leaf page, and the rows its parent promises there: `low` < row <= `high`."""

    page: int
    low: int
    high: int


class Walk:
    """What a walk over a tree has seen."""

    def __init__(self, pages: int) -> None:
        self.reached = bytearray(pages + 1)
        self.holes = 0
        """Subtrees that cannot be reached; and of `entries`, records that cannot be read."""


class SqliteFile(AbstractContextManager["SqliteFile"]):
    """A database file and its write-ahead log, read-only."""

    def __init__(self, path: Path, checkpoint: Callable[[], None] = lambda: None) -> None:
        """Open the file; one that is missing is empty. Raises OSError when it may not be read."""
        self._checkpoint = checkpoint
        self._file = path.open("rb", buffering=0) if path.exists() else None
        header = self._file.read(_HEADER_BYTES) if self._file else b""
        size = 65_536 if header[16:18] == b"\0\1" else int.from_bytes(header[16:18], "big")
        is_whole = header.startswith(MAGIC) and size in _PAGE_BYTES
        self.page_size = size if is_whole else _DEFAULT_PAGE_BYTES
        self._usable = self.page_size - (header[20] if is_whole and header[20] <= 32 else 0)  # noqa: PLR2004
        wal = path.with_name(f"{path.name}-wal")
        stored = path.stat().st_size // self.page_size if self._file else 0
        self._pointer_maps = not is_whole or header[52:56] != bytes(4)  # a log of this release has them
        try:
            offsets = read_wal(wal, self.page_size, checkpoint).offsets
        except BaseException:
            if self._file:
                self._file.close()
            raise
        most = stored + len(offsets)  # a number beyond it is garbage
        self._wal_offsets = {page: offset for page, offset in offsets.items() if page <= most}
        self._wal = wal.open("rb", buffering=0) if self._wal_offsets else None
        self.pages = max(stored, *self._wal_offsets) if self._wal_offsets else stored

    def __exit__(self, *exc: object) -> None:
        """Close the files."""
        for file in (self._file, self._wal):
            if file is not None:
                file.close()

    def page(self, number: int) -> bytes:
        """Return a page's bytes. Raises Unreadable, and what the checkpoint raises."""
        self._checkpoint()
        offset = self._wal_offsets.get(number)
        file = self._file if offset is None else self._wal
        if file is None or not 0 < number <= self.pages:
            raise Unreadable(f"there is no page {number}")
        try:
            file.seek((number - 1) * self.page_size if offset is None else offset)
            data = file.read(self.page_size)
        except OSError as error:  # a sector that the card cannot read any more
            raise Unreadable(f"page {number}: {error.strerror}") from error
        if len(data) != self.page_size:
            raise Unreadable(f"page {number} is cut off")
        return data

    # Trees

    def leaves(self, root: int, walk: Walk) -> Iterator[Leaf]:
        """Yield a table's leaf pages in row order, without reading them; `walk` notes what was seen and what was not.

        All leaves of a tree are equally deep, so one readable child tells what its siblings are.
        """
        stack = [(Leaf(root, _FIRST, _LAST), self._depth(root))]
        while stack:
            node, depth = stack.pop()
            if not 0 < node.page <= self.pages or walk.reached[node.page]:
                walk.holes += 1
                continue
            if depth == 0:
                walk.reached[node.page] = 1
                yield node
                continue
            try:
                children = self._children(node)
            except Unreadable:
                walk.holes += 1
                continue
            walk.reached[node.page] = 1
            stack += [(child, depth - 1) for child in reversed(children)]

    def _depth(self, root: int) -> int:
        """Return how many levels are above the leaves: along the first way down that can be read."""
        trail: list[tuple[Leaf, int]] = [(Leaf(root, _FIRST, _LAST), 0)]
        while trail:
            node, depth = trail.pop()
            try:
                if self.kind(node.page) not in _INTERIOR:
                    return depth
                if depth < 20:  # noqa: PLR2004 - no real tree is deeper; damage may make circles
                    trail += [(child, depth + 1) for child in reversed(self._children(node))]
            except Unreadable:
                continue
        return 1

    def _children(self, node: Leaf) -> list[Leaf]:
        """Return the pages under an interior page of a table. Raises Unreadable when anything is out of order."""
        page, start = self.page(node.page), self._start(node.page)
        kind, cells = self._head(page, start)
        if kind != _INTERIOR_TABLE:
            raise Unreadable(f"page {node.page} is not an interior page of a table")
        children: list[Leaf] = []
        low = node.low
        for at in cells:
            key, _ = varint(page, at + 4)
            if not low < key <= node.high:
                raise Unreadable(f"page {node.page} has rows out of order")
            children.append(Leaf(int.from_bytes(page[at : at + 4], "big"), low, key))
            low = key
        last = int.from_bytes(page[start + 8 : start + 12], "big")
        return [*children, Leaf(last, low, node.high)]

    def scan(self, *walks: Walk) -> Iterator[int]:
        """Yield every leaf page of any table that one of the walks has not reached, in the file's order."""
        free = self._free_pages()
        for number in range(1, self.pages + 1):
            reached = all(walk.reached[number] for walk in walks)
            if not (reached or number in free or self._is_pointer_map(number)):
                try:
                    if self.kind(number) == _LEAF_TABLE:
                        yield number
                except Unreadable:
                    continue

    def _is_pointer_map(self, number: int) -> bool:
        """Whether the page tells whose child the following ones are (auto_vacuum), and is no page of a tree."""
        return self._pointer_maps and number >= 2 and (number - 2) % (self._usable // 5 + 1) == 0  # noqa: PLR2004

    def _free_pages(self) -> set[int]:
        """Return the pages that erased rows have left behind, as far as the list of them is sound.

        A page with a newer version in the write-ahead log may be in use again by then.
        """
        free = set[int]()
        try:
            following = int.from_bytes(self.page(1)[32:36], "big")
            while following and following not in free:
                page = self.page(following)
                count = int.from_bytes(page[4:8], "big")
                if count > self._usable // 4 - 2:
                    break
                leaves = struct.unpack_from(f">{count}I", page, 8)
                if not all(0 < leaf <= self.pages for leaf in leaves):
                    break
                free |= {following, *leaves}
                following = int.from_bytes(page[:4], "big")
        except Unreadable:
            pass
        return {number for number in free if number not in self._wal_offsets}

    def rows(self, leaf: Leaf) -> Iterator[tuple[int, list[Value] | None]]:
        """Yield (row, values) of a table's leaf page; None for values that cannot be read. Raises Unreadable."""
        page = self.page(leaf.page)
        kind, cells = self._head(page, self._start(leaf.page))
        if kind != _LEAF_TABLE:
            raise Unreadable(f"page {leaf.page} is not a leaf page of a table")
        for at in cells:
            try:
                size, after = varint(page, at)
                row, after = varint(page, after)
            except Unreadable:
                continue
            if leaf.low < row <= leaf.high:
                try:
                    yield row, record(self._payload(page, after, size, self._usable - 35))
                except (Unreadable, IndexError, ValueError, struct.error):
                    yield row, None

    def entries(self, root: int, walk: Walk) -> Iterator[list[Value]]:
        """Yield the records of an index, or of a table WITHOUT ROWID, as far as they can be reached, in any order.

        `walk` notes what was seen and what was not.
        """
        most = (self._usable - 12) * 64 // 255 - 23
        stack = [root]
        while stack:
            number = stack.pop()
            try:
                page, start = self.page(number), self._start(number)
                kind, cells = self._head(page, start)
            except Unreadable:
                walk.holes += 1
                continue
            if kind not in (_INTERIOR_INDEX, _LEAF_INDEX) or walk.reached[number]:
                walk.holes += 1
                continue
            walk.reached[number] = 1
            skip = 4 if kind == _INTERIOR_INDEX else 0
            if skip:
                stack.append(int.from_bytes(page[start + 8 : start + 12], "big"))
                stack += [int.from_bytes(page[at : at + 4], "big") for at in cells]
            for at in cells:
                try:
                    size, after = varint(page, at + skip)
                    yield record(self._payload(page, after, size, most))
                except (Unreadable, IndexError, ValueError, struct.error):
                    walk.holes += 1

    # Pages

    @staticmethod
    def _start(number: int) -> int:
        return _HEADER_BYTES if number == 1 else 0

    def kind(self, number: int) -> int:
        """Return what a page of a tree is. Raises Unreadable."""
        return self._head(self.page(number), self._start(number))[0]

    def _head(self, page: bytes, start: int) -> tuple[int, tuple[int, ...]]:
        """Return a tree page's kind and where its cells are. Raises Unreadable for any other page."""
        kind, _, count, content = struct.unpack_from(">BHHH", page, start)
        first = start + (12 if kind in _INTERIOR else 8)
        last = first + 2 * count
        if kind not in _KINDS or last > (content or 65_536) or (content or 65_536) > self.page_size:
            raise Unreadable("not a page of a tree")
        cells = struct.unpack_from(f">{count}H", page, first)
        if count and not (last <= min(cells) and max(cells) <= self._usable - 4):
            raise Unreadable("cells out of the page")
        return kind, cells

    def _payload(self, page: bytes, at: int, size: int, most: int) -> bytes:
        """Return a record's bytes, of which only `most` may be on the page itself; the rest is a chain of pages."""
        if not 0 < size <= _MOST_RECORD_BYTES:
            raise Unreadable("a record of an impossible length")
        if size <= most:
            return page[at : at + size]
        chunk = self._usable - 4
        least = (self._usable - 12) * 32 // 255 - 23
        local = least + (size - least) % chunk
        local = local if local <= most else least
        data = bytearray(page[at : at + local])
        following = int.from_bytes(page[at + local : at + local + 4], "big")
        while len(data) < size:
            page = self.page(following)
            following = int.from_bytes(page[:4], "big")
            data += page[4 : 4 + min(chunk, size - len(data))]
        if following:
            raise Unreadable("the chain is longer than its record")
        return bytes(data)


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return SQLite's variable-length integer (signed, 64 bits) and where it ends. Raises Unreadable at the end."""
    if at + 9 > len(data) and not any(byte < 0x80 for byte in data[at:]):  # noqa: PLR2004 - the last byte's mark
        raise Unreadable("a number is cut off")
    value = 0
    for end in range(at, at + 8):
        byte = data[end]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:  # noqa: PLR2004 - the last byte
            return value, end + 1
    value = value << 8 | data[at + 8]
    return (value - 2**64 if value >= 2**63 else value), at + 9


def record(data: bytes) -> list[Value]:
    """Return the values of a record. Raises Unreadable, IndexError or ValueError when it is not one."""
    head, at = varint(data, 0)
    body, size = head, len(data)
    values: list[Value] = []
    while at < head:
        kind = data[at]
        at += 1
        if kind >= 0x80:  # noqa: PLR2004 - a longer varint
            kind, at = varint(data, at - 1)
        if kind >= 12:  # noqa: PLR2004 - text and blobs, whose length is in their type
            end = body + (kind - 12 >> 1)
            values.append(data[body:end].decode() if kind & 1 else data[body:end])
            body = end
        elif 1 <= kind <= 6:  # noqa: PLR2004 - integers of different lengths
            end = body + _INTEGER_BYTES[kind]
            values.append(int.from_bytes(data[body:end], "big", signed=True))
            body = end
        elif kind < 0:
            raise Unreadable("a record with a type that does not exist")
        else:
            values.append(_CONSTANTS[kind] if kind != 7 else struct.unpack(">d", data[body : body + 8])[0])  # noqa: PLR2004
            body += 8 if kind == 7 else 0  # noqa: PLR2004
    if at != head or body != size:
        raise Unreadable("a record's lengths do not fit")
    return values


_CONSTANTS: tuple[Value, ...] = (None, None, None, None, None, None, None, None, 0, 1)
