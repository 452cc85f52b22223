"""Whether an HTTP receiver would take a batch, without sending it one.

What is asked is OPTIONS, with our identity and without a body: it changes nothing (RFC 9110, 9.2.1), and no receiver
takes it for a reading. A batch without readings would be no better a test where the body is a template's, and a PUT of
nothing may erase something. So what is not known is whether the secret of the signatures is the same on both sides;
whether their clocks agree is. Many receivers answer OPTIONS with something of their own: what is no success is said as
something to look at, and how real deliveries go is another check.
"""

from yarl import URL

from cloud_sync.contract import NotConnected, WrongAddress
from cloud_sync.egress import Egress
from cloud_sync.integrations.http.server_check import reach_server
from cloud_sync.integrations.http.signed_post import Options, SignedPost
from gateway.clock import Clock
from gateway.model.finding import Finding, broken, fine, warning

_PATIENCE_S = 5.0
_TOLERANCE_MS = 300_000
"""What receivers let a signature's time differ (Standard Webhooks' libraries)."""
_GONE = 410
_MEANINGS = {
    401: ("perhaps it does not accept who we are.", "Is `auth_token` or `api_key` right? See the check delivery."),
    403: ("perhaps it does not accept who we are.", "Is `auth_token` or `api_key` right? See the check delivery."),
    404: ("perhaps nothing is at this path.", "Is `url` right? See the check delivery."),
    _GONE: ("it wants nothing more.", "Take it out, or ask for its new address."),
    501: ("", ""),  # it knows no OPTIONS
    3: ("a redirect; these are not followed.", "Set `url` to where it leads."),
    5: ("it has a fault of its own.", "See the receiver's own log."),
}
"""By status, else by its first digit."""


async def check_receiver(
    url: str, post: SignedPost, method: str, clock: Clock, egress: Egress, *, signs: bool | None
) -> list[Finding]:
    """Return what was found, up to where it fails. `post` is entered; `signs` is None where nobody asks for that."""
    reached = await reach_server(URL(url, encoded=True), post.line, egress, clock)
    if not reached.is_connected:
        return reached.findings
    match await post.ask_options(_PATIENCE_S):
        case NotConnected(reason) | WrongAddress(reason):
            answered = [broken(f"It takes connections, but gives no answer: {reason}.", "See the receiver's own log.")]
        case answer:
            answered = answer_findings(answer, method, clock, signs=signs)
    return [*reached.findings, *answered]


def answer_findings(answer: Options, method: str, clock: Clock, *, signs: bool | None) -> list[Finding]:
    """Say what an answer to OPTIONS means for batches that are sent by `method`."""
    found = [_status(answer, method)]
    if signs is None:
        return found
    if not signs:
        found.append(
            warning("Batches are not signed: anybody could send some.", "Set `secret`, here and at the receiver.")
        )
    elif answer.date_ms is not None and abs(off_ms := answer.date_ms - clock.now_ms()) > _TOLERANCE_MS:
        way = "behind" if off_ms > 0 else "ahead of"
        words = (
            f"This machine's clock is {abs(off_ms) / 1000:,.0f} s {way} the receiver's, which refuses signatures then."
        )
        found.append(broken(words, "Set the one that is wrong by NTP: see the check clock."))
    return found


def _status(answer: Options, method: str) -> Finding:
    said = f"It answers OPTIONS with HTTP {answer.status}"
    if answer.methods and method not in answer.methods and "*" not in answer.methods:
        takes = ", ".join(sorted(answer.methods))
        return broken(f"{said}: it takes {takes} there, not {method}.", "Correct `url` or `method`.")
    words, hint = _MEANINGS.get(answer.status, _MEANINGS.get(answer.status // 100, ("", "")))
    if answer.status == _GONE:
        return broken(f"{said}: {words}", hint)
    return warning(f"{said}: {words}", hint) if words else fine(f"{said}: it is there.")
