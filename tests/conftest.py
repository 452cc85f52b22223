"""Fixtures that several rooms share."""

import gc
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from gateway.storage.commit_thread import CommitThread, Transaction
from tests.site import FailingDisk, Site, running_site

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")  # how fast a busy machine is says nothing of what is tested

settings.register_profile("thorough", settings.get_profile("patient"), max_examples=3_000, stateful_step_count=200)
"""For `--hypothesis-profile thorough`: many minutes."""


def pytest_configure() -> None:
    """Let programs that tests start hear Ctrl-C, also where a shell began the run in the background, deaf to it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: what begins last, a whole run waits for."""
    longest: dict[Path, float] = {}
    for item in items:
        allowed = item.get_closest_marker("timeout")
        longest[item.path] = max(longest.get(item.path, 0), allowed.args[0] if allowed else 0)
    items.sort(key=lambda item: -longest[item.path])


def pytest_collection_finish() -> None:
    """Leave thousands of tests and all that they import out of every garbage collection from now on."""
    gc.collect()
    gc.freeze()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A running gateway with the device `kitchen`; its clock stands still."""
    async with running_site(tmp_path / "data") as running:
        yield running


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FailingDisk:
    """The disk under every log: `disk.failing = True` lets each commit fail after its statements."""
    disk = FailingDisk()

    def attempt(thread: CommitThread, transaction: Transaction) -> object:
        return disk.attempt(thread, transaction)

    monkeypatch.setattr(CommitThread, "_attempt", attempt)
    return disk
