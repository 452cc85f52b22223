"""What is tried with every cloud in the same way: how it refuses, its tokens, a wrong clock, wrong settings.

`serving` opens a strict cloud, `made` makes the integration that speaks to it.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from pydantic import ValidationError

from cloud_sync.contract import AuthFailed, Ok, Outcome
from gateway.clock import ManualClock
from tests.cloud_sync.integrations.clouds.http_cloud import Refusal
from tests.cloud_sync.samples import NOW_MS, batch, sent

Serving = Callable[[], AbstractAsyncContextManager[Any]]
Made = Callable[..., Any]


async def outcome_of(serving: Serving, made: Made, *refusal: Any) -> Outcome:
    """What becomes of a batch that the cloud refuses with these words."""
    async with serving() as fake, made(fake) as it:
        fake.refuses = [refusal]
        return await sent(it, batch(1))


async def a_refusal_is_known(serving: Serving, made: Made, refusal: Refusal, expected: type[Outcome]) -> None:
    outcome = await outcome_of(serving, made, *refusal)
    assert type(outcome) is expected
    assert not isinstance(outcome, Ok)
    status, *words = refusal
    for said in (f"HTTP {status}", *words):
        assert said in outcome.reason


async def a_token_is_used_for_50_minutes_and_none_that_has_expired(serving: Serving, made: Made) -> None:
    clock = ManualClock(NOW_MS)
    async with serving() as fake, made(fake, clock=clock) as it:
        for minutes, tokens in ((0, 1), (49, 1), (2, 2), (59, 3), (-300, 4)):  # the last: somebody has set the clock
            clock.now += minutes * 60_000
            fake.now_s = clock.now_ms() / 1000
            assert await sent(it, batch(1)) == Ok()
            assert len(set(fake.tokens)) == tokens


async def a_wrong_clock_is_told(serving: Serving, made: Made, off_s: int, words: str) -> None:
    async with serving() as fake, made(fake, clock=ManualClock(NOW_MS + off_s * 1000)) as it:
        fake.now_s = NOW_MS / 1000
        outcome = await sent(it, batch(1))
        assert isinstance(outcome, AuthFailed)
        assert outcome.reason.startswith(f"this machine's clock is {words} the server's")
        assert "by NTP" in outcome.reason
        assert any(words in one.words for one in await it.check() if one.level == "broken")


def refused(configured: Callable[[], object], words: str, *secrets: str) -> None:
    """Whether settings are refused with these words, and without these."""
    with pytest.raises(ValidationError) as caught:
        configured()
    assert words in str(caught.value)
    for secret in secrets:
        assert secret not in str(caught.value)
