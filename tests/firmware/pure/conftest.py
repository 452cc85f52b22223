"""Under CPython: a loop whose time leaps to when a task may run, instead of waiting, as `time_by_hand.leap` does it.

And the garbage is left to CPython: a board collects it often, and here it would look through everything pytest holds.
"""

import asyncio
import gc

import pytest


@pytest.fixture(autouse=True)
def _no_collection(monkeypatch):
    monkeypatch.setattr(gc, "collect", lambda: 0)


@pytest.fixture(autouse=True)
async def _time_leaps(monkeypatch):
    loop = asyncio.get_running_loop()
    look, now = loop._selector.select, loop.time
    leapt = 0.0

    def select(timeout):
        nonlocal leapt
        ready = look(None if timeout is None else 0)
        if not ready and timeout:
            leapt += timeout
        return ready

    monkeypatch.setattr(loop._selector, "select", select)
    monkeypatch.setattr(loop, "time", lambda: now() + leapt)
