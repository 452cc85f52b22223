"""Shorter names for a board: MicroPython keeps every name that it has ever met in memory, once for all modules.

What begins with an underscore and occurs in a single module may have any name there, and so may an argument that nobody
gives by its name; so all modules share a few: `_a`, `_b`. Functions and classes keep theirs, which tracebacks show, and
so do lines. So does what a class uses that another module inherits: both write to the same object.
"""

import ast
import builtins
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping
from string import ascii_lowercase

from gateway.provisioning.bundles import renamed

_PRIVATE = re.compile(r"_[A-Za-z]\w*")


def shortened(sources: Mapping[str, str]) -> dict[str, str]:
    """Return the sources of one program (path → text) with short names for what only one of them knows."""
    words = {path: Counter(_words(source, tokenize.NAME)) for path, source in sources.items()}
    modules_of = Counter(word for counted in words.values() for word in counted)
    texts = {text.strip("\"'") for source in sources.values() for text in _words(source, tokenize.STRING)}
    trees = {path: ast.parse(source) for path, source in sources.items()}
    by_keyword = {node.arg for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    result = {}
    for path, source in sources.items():
        defined = {node.name for node in ast.walk(trees[path]) if isinstance(node, _DEFINES)}
        bases = set().union(*(_bases(tree) for other, tree in trees.items() if other != path))
        shared = _words_of_classes(trees[path], bases)
        arguments = _arguments(trees[path]) - by_keyword
        private = [
            word
            for word, _ in words[path].most_common()
            if word in arguments
            or (_PRIVATE.fullmatch(word) and modules_of[word] == 1 and word not in defined | texts | shared)
        ]
        free = (word for word in _short() if word not in modules_of)
        result[path] = renamed(source, dict(zip(private, free, strict=False)))
    return result


_DEFINES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _words(source: str, kind: int) -> Iterator[str]:
    """Yield the names; or the texts, of which one may be a name for getattr."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == kind:
            yield token.string


def _arguments(tree: ast.Module) -> set[str]:
    """Return the arguments' names, of which a board keeps each, that mean nothing else in this module."""
    names, others = set(), set(dir(builtins)) | {"self", "cls"}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Attribute):
            others.add(node.attr)
        elif isinstance(node, ast.alias):
            others |= {node.asname or "", *node.name.split(".")}
        elif isinstance(node, ast.ImportFrom):
            others |= set((node.module or "").split("."))
        elif isinstance(node, _DEFINES):
            others.add(node.name)
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign | ast.For | ast.With | ast.If | ast.Try):
            others |= {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
    return {name for name in names - others if len(name) > len("_a")}


def _words_of_classes(tree: ast.Module, names: set[str]) -> set[str]:
    nodes = [
        node for one in ast.walk(tree) if isinstance(one, ast.ClassDef) and one.name in names for node in ast.walk(one)
    ]
    return {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def _bases(tree: ast.Module) -> set[str]:
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return {base.id for node in classes for base in node.bases if isinstance(base, ast.Name)}


def _short() -> Iterator[str]:
    """Yield _a to _z, then _aa to _zz."""
    for first in ("", *ascii_lowercase):
        for second in ascii_lowercase:
            yield f"_{first}{second}"
