"""Several modules in one file: on a board each costs some 300 bytes beside its code, for names that others have too.

What is in memory all the time is bundled, and nothing else: what serves for a moment stays a module, that can be
forgotten. The lines of the first module of a bundle stay what they are, those of the second begin at 1001, and so on;
a traceback names the modules in this order: `files+clock+supervisor`, line 2042 is line 42 of `supervisor`.
"""

import ast
import builtins
import io
import tokenize
from collections.abc import Iterator, Mapping

BUNDLES = {
    "app/base": ("app/files", "app/mqtt_codec", "app/on_demand", "app/within", "app/clock", "app/supervisor"),
    "app/link": ("app/mqtt", "app/wifi", "app/connection", "app/timekeeper", "app/commands", "app/status"),
    "app/main": (
        "app/crash_log",
        "app/slot",
        "app/settings",
        "app/spill",
        "app/outbox",
        "app/telemetry",
        "app/main",
    ),
    "drivers/fitted": (
        "drivers/ld2410_frames",
        "drivers/ld2410",
        "drivers/mq",
        "drivers/mq_sensor",
        "drivers/pir",
        "app/readings",
    ),
}
"""Bundle → its modules; each after those that it imports. Not in safe mode's way: the last is imported late."""
_LINES = 1_000
_BUNDLE_OF = {_module: bundle for bundle, modules in BUNDLES.items() for _module in modules}


def bundled(sources: Mapping[str, str]) -> dict[str, str]:
    """Return the sources of one program (path without `.py` → text), bundled. Raises SyntaxError."""
    if not _BUNDLE_OF.keys() <= sources.keys():
        return dict(sources)  # another program
    texts = {path: redirected(text, _BUNDLE_OF.get(path)) for path, text in sources.items()}
    result = {path: text for path, text in texts.items() if path not in _BUNDLE_OF}
    for bundle, modules in BUNDLES.items():
        result[bundle] = _joined(bundle, {module: texts[module] for module in modules})
    return result


def shown(path: str) -> str:
    """Return what tracebacks call a file."""
    return "+".join(module.split("/")[1] for module in BUNDLES.get(path, ())) or path.replace("/", ".")


def redirected(text: str, bundle: str | None = None) -> str:
    """Return a source that imports from bundles what is in them; `bundle` is the one that it is in itself."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            statement = "; ".join(_imports(node, bundle))
            if statement != ast.unparse(node):
                end = node.end_lineno or node.lineno
                lines[node.lineno - 1] = " " * node.col_offset + statement
                lines[node.lineno : end] = [""] * (end - node.lineno)
        elif isinstance(node, ast.Import) and any(one.name.replace(".", "/") in _BUNDLE_OF for one in node.names):
            raise SyntaxError(f"line {node.lineno}: a bundled module is imported by `from` only")
    return "\n".join(lines) + "\n"


def _imports(node: ast.ImportFrom, own: str | None) -> Iterator[str]:
    package = str(node.module).replace(".", "/")
    rest = []
    for one in node.names:
        is_module = f"{package}/{one.name}" in _BUNDLE_OF
        bundle = _BUNDLE_OF.get(f"{package}/{one.name}" if is_module else package)
        if bundle is None:
            rest.append(one)
        elif bundle != own:
            folder, name = bundle.split("/")
            if is_module:
                yield f"from {folder} import {name} as {one.asname or one.name}"
            else:
                yield f"from {folder}.{name} import {one.name}" + (f" as {one.asname}" if one.asname else "")
        elif is_module or one.asname:
            raise SyntaxError(f"line {node.lineno}: {one.name} is in the same bundle, and has no name of its own there")
    if rest:
        yield ast.unparse(ast.ImportFrom(node.module, rest, 0))
    elif all(_BUNDLE_OF.get(package) == own for _ in node.names):
        yield "pass"


def _joined(bundle: str, texts: Mapping[str, str]) -> str:
    """Return the modules one after another; what several of them call the same gets other names in the later ones."""
    taken = set(dir(builtins))
    joined = ""
    for number, (module, text) in enumerate(texts.items()):
        defined = set(_defined(text))
        names = {}
        for name in sorted(defined & taken):
            if not name.startswith("_"):
                raise SyntaxError(f"{bundle}: {name} of {module} is there twice")
            names[name] = f"{name}_{number}"
        taken |= defined
        joined += "\n" * (_LINES * number - joined.count("\n")) + renamed(text, names)
    return joined


def _defined(text: str) -> Iterator[str]:
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def renamed(text: str, names: Mapping[str, str]) -> str:
    """Return a source in which these names are others, wherever they stand."""
    lines = text.splitlines(keepends=True)
    for token in reversed(list(tokenize.generate_tokens(io.StringIO(text).readline))):
        if token.type == tokenize.NAME and token.string in names:
            row, start, end = token.start[0] - 1, token.start[1], token.end[1]
            lines[row] = lines[row][:start] + names[token.string] + lines[row][end:]
    return "".join(lines)
