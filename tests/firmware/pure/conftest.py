"""Under CPython: a loop whose time leaps to when a task may run, instead of waiting, as `time_by_hand.leap` does it."""

import asyncio

import pytest


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
