"""All checks at once, none waits for another, and what hangs is said."""

import importlib
import json
import pkgutil
import subprocess
import sys
import time
from functools import partial

import pytest

from gateway.clock import ManualClock
from gateway.config import LoadedConfig, Settings
from gateway.daemon_thread import in_daemon_thread
from gateway.doctor import checks
from gateway.doctor.evidence import Evidence
from gateway.doctor.examination import examine, is_broken
from gateway.doctor.report import document, lines
from gateway.model.errors import StoreFailed
from gateway.model.finding import Finding, broken, fine, warning

SCENE = Evidence(LoadedConfig(Settings(), {}, None), ManualClock())


async def well(_: Evidence) -> list[Finding]:
    return [fine("It is well.")]


async def not_quite(_: Evidence) -> list[Finding]:
    return [warning("It creaks.", "Oil it.")]


async def wrong(_: Evidence) -> list[Finding]:
    return [fine("Half of it."), broken("It is broken.", "Mend it.")]


async def hangs(_: Evidence) -> list[Finding]:
    await in_daemon_thread(partial(time.sleep, 60))
    return []


async def fails(_: Evidence) -> list[Finding]:
    raise ValueError("geheim")


async def complains(_: Evidence) -> list[Finding]:
    raise StoreFailed("The disk is gone.", hint="Plug it in.")


def test_every_check_has_a_file_of_its_name_and_is_in_the_list() -> None:
    names = {module.name for module in pkgutil.iter_modules(checks.__path__)}
    listed = [check.__name__ for check in checks.CHECKS]
    assert sorted(listed) == sorted(names)
    for check in checks.CHECKS:
        assert check.__doc__
        assert importlib.import_module(check.__module__).__doc__


async def test_what_hangs_or_fails_spoils_no_other_check_and_shows_no_value() -> None:
    results = await examine([hangs, fails, complains, well], SCENE, limit_s=0.2)
    assert [result.level for result in results] == ["warning", "warning", "broken", "ok"]
    assert "did not end within 0.2 s" in results[0].findings[0].words
    assert "ValueError" in results[1].findings[0].words
    assert "geheim" not in str(results)
    assert results[2].findings == [broken("The disk is gone.", "Plug it in.")]


HANGING = """
import asyncio, time
from gateway.daemon_thread import in_daemon_thread

async def main():
    try:
        async with asyncio.timeout(0.1):
            await in_daemon_thread(lambda: time.sleep(600))
    except TimeoutError:
        print("given up", flush=True)

asyncio.run(main())
"""


def test_a_thread_that_hangs_does_not_keep_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "given up\n"


async def test_a_daemon_thread_hands_on_results_and_errors() -> None:
    assert await in_daemon_thread(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await in_daemon_thread(lambda: 1 / 0)


async def test_a_warning_is_no_failure() -> None:
    assert not is_broken(await examine([well, not_quite], SCENE))
    assert is_broken(await examine([well, wrong], SCENE))


async def test_the_report_is_signs_on_a_terminal_words_elsewhere_and_json() -> None:
    results = await examine([well, not_quite, wrong], SCENE)
    plain = list(lines(results, with_signs=False))
    assert plain == [
        "ok       well       It is well.",
        "warning  not quite  It creaks.",
        "                    -> Oil it.",
        "ok       wrong      Half of it.",
        "BROKEN   wrong      It is broken.",
        "                    -> Mend it.",
        "1 broken, 1 to look at, 2 as it should be.",
    ]
    assert "".join(plain).isascii()
    signs = "\n".join(lines(results, with_signs=True))
    assert {"✓", "✗", "!"} <= set(signs)
    found = json.loads(json.dumps(document(results)))
    assert found["ok"] is False
    assert found["checks"][1] == {
        "check": "not quite",
        "level": "warning",
        "findings": [{"level": "warning", "words": "It creaks.", "hint": "Oil it."}],
    }


async def test_when_all_is_well_it_says_so() -> None:
    assert list(lines(await examine([well], SCENE), with_signs=False))[-1] == "All is well."
