"""Carries out checks: all at once, each with a time limit, and none can spoil another."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.doctor.evidence import Check, Evidence
from gateway.model.errors import NeurogateError
from gateway.model.finding import Finding, Level, broken, warning

LIMIT_S = 15.0


@dataclass(slots=True, frozen=True)
class Result:
    """What one check has found."""

    check: str
    findings: list[Finding]

    @property
    def level(self) -> Level:
        """The worst of them."""
        return max((finding.level for finding in self.findings), key=_SEVERITY.index, default="ok")


_SEVERITY: tuple[Level, ...] = ("ok", "warning", "broken")


async def examine(checks: Sequence[Check], evidence: Evidence, *, limit_s: float = LIMIT_S) -> list[Result]:
    """Return what each has found, in their order."""
    return list(await asyncio.gather(*(_one(check, evidence, limit_s) for check in checks)))


async def _one(check: Check, evidence: Evidence, limit_s: float) -> Result:
    name = getattr(check, "__name__", "check").replace("_", " ")
    try:
        async with asyncio.timeout(limit_s):
            return Result(name, await check(evidence))
    except TimeoutError:
        found = warning(f"This did not end within {limit_s:g} s.", "What it looks at hangs; look there first.")
    except NeurogateError as error:
        found = broken(error.message, error.hint)
    except Exception as error:  # noqa: BLE001 - the other checks go on, and this is said
        found = warning(
            f"This could not be checked ({type(error).__name__}).", "Report it; neurogate diag collects what we need."
        )
    return Result(name, [found])


def is_broken(results: Sequence[Result]) -> bool:
    """Whether something does not work."""
    return any(result.level == "broken" for result in results)
