"""Fixtures that tests of the log share."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.storage.commit_thread import CommitThread
from gateway.storage.log import Log
from tests.site import PATIENCE_S
from tests.storage.small_log import Commits, opened


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    async with opened(tmp_path) as log:
        yield log


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> Commits:
    commits = Commits()
    real = CommitThread._attempt

    def attempt(thread: CommitThread, transaction: Any) -> Exception | None:
        commits.waiting.set()
        assert commits.gate.wait(PATIENCE_S)
        if hasattr(transaction, "entries"):
            commits.sizes.append(len(transaction.entries))
        return real(thread, transaction)

    monkeypatch.setattr(CommitThread, "_attempt", attempt)
    return commits
