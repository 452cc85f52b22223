"""Topics, or topic filters, by their levels: a look-up costs what lies on its way, however many there are."""

from collections.abc import Iterator


class _Node:
    __slots__ = ("children", "name")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.name: str | None = None


class TopicTree:
    """A set of names. Walks it without recursion: a name may have as many levels as it likes."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, name: str) -> None:
        """Add a name."""
        node = self._root
        for level in name.split("/"):
            node = node.children.setdefault(level, _Node())
        node.name = name

    def remove(self, name: str) -> None:
        """Remove a name, and the branches that led only there."""
        node, way = self._root, []
        for level in name.split("/"):
            if level not in node.children:
                return
            way.append((node, level))
            node = node.children[level]
        node.name = None
        while way and node.name is None and not node.children:
            node, level = way.pop()
            del node.children[level]

    def filters_for(self, topic: str) -> Iterator[str]:
        """Yield the names that match a topic, as filters; none that begins with a wildcard matches `$…`."""
        levels = topic.split("/")
        todo = [(self._root, 0)]
        while todo:
            node, depth = todo.pop()
            children = node.children
            may_be_wild = depth > 0 or not topic.startswith("$")
            if may_be_wild and (rest := children.get("#")) is not None and rest.name is not None:
                yield rest.name
            if depth == len(levels):
                if node.name is not None:
                    yield node.name
                continue
            if may_be_wild and (any_level := children.get("+")) is not None:
                todo.append((any_level, depth + 1))
            if (same := children.get(levels[depth])) is not None:
                todo.append((same, depth + 1))

    def topics_for(self, topic_filter: str) -> Iterator[str]:
        """Yield the names that a filter matches."""
        levels = topic_filter.split("/")
        todo = [(self._root, 0)]
        while todo:
            node, depth = todo.pop()
            level = levels[depth] if depth < len(levels) else ""
            if depth == len(levels) or level == "#":
                if node.name is not None:
                    yield node.name
                if depth == len(levels):
                    continue
            if level in ("+", "#"):
                further = depth if level == "#" else depth + 1
                todo += [
                    (child, further)
                    for name, child in node.children.items()
                    if node is not self._root or not name.startswith("$")
                ]
            elif (same := node.children.get(level)) is not None:
                todo.append((same, depth + 1))
