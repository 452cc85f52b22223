"""What was found, for people and for scripts."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from gateway.doctor.examination import Result, is_broken
from gateway.model.finding import Level

_SIGNS: dict[Level, tuple[str, str, str]] = {
    "ok": ("\N{CHECK MARK}", "ok", "\x1b[32m"),
    "warning": ("!", "warning", "\x1b[33m"),
    "broken": ("\N{BALLOT X}", "BROKEN", "\x1b[31m"),
}
_RESET = "\x1b[0m"


def lines(results: Sequence[Result], *, with_signs: bool) -> Iterator[str]:
    """Yield the lines to print: with signs and colours for a terminal, else with words."""
    width = max((len(result.check) for result in results), default=0)
    for result in results:
        for finding in result.findings:
            sign, word, colour = _SIGNS[finding.level]
            mark = f"{colour}{sign}{_RESET}" if with_signs else f"{word:<8}"
            yield f"{mark} {result.check:<{width}}  {finding.words}"
            if finding.hint:
                yield f"{' ' * (1 if with_signs else 8)} {'':<{width}}  -> {finding.hint}"
    yield summary(results)


def summary(results: Sequence[Result]) -> str:
    """Return the last line."""
    levels = [finding.level for result in results for finding in result.findings]
    broken, warnings = levels.count("broken"), levels.count("warning")
    if not broken and not warnings:
        return "All is well."
    return f"{broken} broken, {warnings} to look at, {levels.count('ok')} as it should be."


def document(results: Sequence[Result]) -> dict[str, Any]:
    """Return the same as JSON."""
    return {
        "ok": not is_broken(results),
        "checks": [
            {"check": result.check, "level": result.level, "findings": [asdict(one) for one in result.findings]}
            for result in results
        ],
    }
