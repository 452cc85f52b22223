"""Whether a cloud's server can be reached and answers, and whether its clock and ours agree: what all of them have."""

from collections.abc import Awaitable, Callable

from yarl import URL

from cloud_sync.contract import AuthFailed, NotConnected, Outcome, WrongAddress
from cloud_sync.egress import Egress
from cloud_sync.integrations.http.exchange import Answer
from cloud_sync.integrations.http.line import Line
from cloud_sync.integrations.http.reach import Reached, reach
from gateway.clock import Clock
from gateway.model.finding import Finding, broken, fine, warning

PATIENCE_S = 10.0
"""How long a check waits for an answer, at most."""

Ask = Callable[[], Awaitable[Answer | NotConnected | WrongAddress]]


async def check_server(
    url: URL, line: Line, ask: Ask, clock: Clock, egress: Egress, *, tolerance_s: float
) -> tuple[list[Finding], Answer | None]:
    """Return what was found, and what the server has answered if it has.

    `tolerance_s` is by how much the clocks may differ until it refuses what we sign.
    """
    reached = await reach_server(url, line, egress, clock)
    found = reached.findings
    if not reached.is_connected:
        return found, None
    if url.scheme != "https":
        found.append(warning("What is sent is not encrypted.", "Let `endpoint` begin with https://."))
    answer = await ask()
    if not isinstance(answer, Answer):
        found.append(broken(f"There is no answer: {answer.reason}.", "See the network, and `proxy`."))
        return found, None
    if answer.date_ms is not None and abs(off_ms := answer.date_ms - clock.now_ms()) > tolerance_s * 1000:
        found.append(
            broken(f"At the moment {clock_words(off_ms)}.", "Set this machine's clock by NTP: see the check clock.")
        )
    return found, answer


def clock_words(off_ms: float) -> str:
    """Say by how much our clock differs, when theirs minus ours is this."""
    way = "behind" if off_ms > 0 else "ahead of"
    return f"this machine's clock is {abs(off_ms) / 1000:,.0f} s {way} the server's, which may refuse signatures then"


def told_of_the_clock(outcome: Outcome, answer: Answer, clock: Clock, tolerance_s: float) -> Outcome:
    """Return the outcome; where we are not accepted and the clocks differ by more, it says that this may be why."""
    if isinstance(outcome, AuthFailed) and answer.date_ms is not None:
        off_ms = answer.date_ms - clock.now_ms()
        if abs(off_ms) > tolerance_s * 1000:
            return AuthFailed(f"{clock_words(off_ms)}: set it by NTP ({outcome.reason})")
    return outcome


async def reach_server(url: URL, line: Line, egress: Egress, clock: Clock) -> Reached:
    """Go as far as possible: to the server, or to the proxy that leads there."""
    if line.proxy is None:
        port, uses_tls = url.port or 0, url.scheme == "https"
        return await reach(url.raw_host or "", port, egress, clock, uses_tls=uses_tls, tls=line.tls())
    reached = await reach(line.proxy.raw_host or "", line.proxy.port or 0, egress, clock, uses_tls=False)
    if reached.is_connected:
        reached.findings.append(fine("Requests go by this proxy."))
    return reached
