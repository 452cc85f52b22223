"""What a broker's codes mean: in plain words, with what to do next, and as an Outcome.

Sources: MQTT 3.1.1, 3.2.2.3; MQTT 5, 2.4 and the tables of CONNACK, PUBACK and DISCONNECT.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cloud_sync.contract import AuthFailed, NotConnected, Ok, Outcome, Rejected, RetryAfter, TooLarge, WrongAddress
from cloud_sync.integrations.mqtt_client.packets import MQTT_311, Answer, Level

_LOGIN_HINT = "Correct `username` and `password`."
_RIGHTS_HINT = "Look at what this user may at the broker."
_LOG_HINT = "See the broker's own log."
_REASON_CHARACTERS = 200
_TOO_LARGE = 0x95
_RETAINS_NOTHING = 0x9A

_Make = Callable[[str], Outcome]


def _patience(reason: str) -> Outcome:
    return RetryAfter(None, reason)


@dataclass(slots=True, frozen=True)
class _Meaning:
    words: str
    make: _Make
    hint: str = _LOG_HINT


class Failed(Exception):
    """There is no connection, or no longer: what that is for the engines, and what to do next."""

    def __init__(self, outcome: Outcome, hint: str = _LOG_HINT, *, blames_packet: bool = False) -> None:
        assert not isinstance(outcome, Ok)
        super().__init__(outcome.reason)
        self.blames_packet = blames_packet
        """Whether something that was sent may be why the connection has ended: it says so, or says nothing."""
        self.outcome = outcome
        self.reason = outcome.reason
        """Begins with a small letter, and has no full stop."""
        self.hint = hint


_OLD_REFUSALS: Mapping[int, _Meaning] = {
    1: _Meaning("it does not speak MQTT 3.1.1", WrongAddress, 'Set `version = "5"`.'),
    2: _Meaning("it refuses the client id", AuthFailed, "Set another `client_id`, or leave it out."),
    3: _Meaning("it says that it is not available", NotConnected),
    4: _Meaning("it refuses the username or the password", AuthFailed, _LOGIN_HINT),
    5: _Meaning("it does not let us in", AuthFailed, f"Set `username` and `password`. {_RIGHTS_HINT}"),
}

_MEANINGS: Mapping[int, _Meaning] = {
    0x00: _Meaning("it has ended the connection", NotConnected),
    0x04: _Meaning("it has ended the connection", NotConnected),
    0x80: _Meaning("it gives no reason", NotConnected),
    0x81: _Meaning("it says that a packet was malformed", NotConnected),
    0x82: _Meaning("it says that the protocol was not kept", NotConnected),
    0x83: _Meaning("it has a reason of its own", NotConnected),
    0x84: _Meaning("it does not speak MQTT 5", WrongAddress, 'Set `version = "3.1.1"`.'),
    0x85: _Meaning("it refuses the client id", AuthFailed, "Set another `client_id`, or leave it out."),
    0x86: _Meaning("it refuses the username or the password", AuthFailed, _LOGIN_HINT),
    0x87: _Meaning("it does not allow it", AuthFailed, f"Set `username` and `password`. {_RIGHTS_HINT}"),
    0x88: _Meaning("it says that it is not available", NotConnected),
    0x89: _Meaning("it is busy", _patience),
    0x8A: _Meaning("it has banned us", AuthFailed),
    0x8B: _Meaning("it is being shut down", NotConnected),
    0x8C: _Meaning("it wants another way of logging in", AuthFailed, "Only username, password and certificates work."),
    0x8D: _Meaning("it has not heard from us for too long", NotConnected),
    0x8E: _Meaning("another client has come with our client id", NotConnected, "Give each its own `client_id`."),
    0x90: _Meaning("it does not take this topic", WrongAddress, "Correct the topic."),
    0x91: _Meaning("it says that a packet id is in use", NotConnected),
    0x93: _Meaning("it says that too much was on its way", NotConnected),
    _TOO_LARGE: _Meaning("it says that a packet is too large", TooLarge),
    0x96: _Meaning("it says that too many messages come", _patience, "Set `rate_limit_per_minute` lower."),
    0x97: _Meaning("its quota is used up", _patience),
    0x98: _Meaning("somebody there has ended the connection", NotConnected),
    0x99: _Meaning("it does not take this payload", NotConnected),
    _RETAINS_NOTHING: _Meaning("it retains nothing", WrongAddress, "Set `retain = false`."),
    0x9B: _Meaning("it does not support QoS 1", WrongAddress, "Readings need QoS 1: use another broker."),
    0x9C: _Meaning("it wants us to use another server", WrongAddress, "Set `broker_url` to that one."),
    0x9D: _Meaning("it has moved to another server", WrongAddress, "Set `broker_url` to that one."),
    0x9F: _Meaning("it says that we connect too often", _patience),
}
_UNKNOWN = _Meaning("it refuses", NotConnected)

_OF_A_MESSAGE: Mapping[int, _Make] = {
    **dict.fromkeys((0x80, 0x81, 0x82, 0x83, 0x90, 0x99), Rejected),
    _TOO_LARGE: TooLarge,
}
"""What is wrong with one message, where it is said of one."""


def refused_login(level: Level, answer: Answer) -> Failed:
    """Return what a CONNACK with a code other than 0 says."""
    meaning = _OLD_REFUSALS.get(answer.code) if answer.code <= max(_OLD_REFUSALS) else _MEANINGS.get(answer.code)
    if answer.code == _RETAINS_NOTHING:  # nothing is published yet: it is about the will
        meaning = _Meaning("it retains nothing", WrongAddress, "Leave out `status_topic` or `home_assistant`.")
    if level != MQTT_311 and answer.code == 1:  # a broker of 3.1.1 answers so, and ends the connection
        meaning = _MEANINGS[0x84]
    return _failed(meaning or _UNKNOWN, answer)


def told_to_go(answer: Answer) -> Failed:
    """Return what a DISCONNECT says."""
    meaning = _MEANINGS.get(answer.code, _UNKNOWN)
    if answer.code in _OF_A_MESSAGE and answer.code != _TOO_LARGE:
        reason = _said(meaning.words, answer)
        return Failed(NotConnected(reason), meaning.hint, blames_packet=True)
    return _failed(meaning, answer)


def outcome_of_message(answer: Answer) -> Outcome:
    """Return what a PUBACK says. One message may be forbidden where another is not: that is AuthFailed here."""
    if not answer.is_refusal:
        return Ok()
    meaning = _MEANINGS.get(answer.code, _UNKNOWN)
    return _OF_A_MESSAGE.get(answer.code, meaning.make)(_said(meaning.words, answer))


def _failed(meaning: _Meaning, answer: Answer) -> Failed:
    return Failed(meaning.make(_said(meaning.words, answer)), meaning.hint)


def _said(words: str, answer: Answer) -> str:
    """Add the code, and what the broker says itself: one line, and not much of it."""
    own = "".join(character if character.isprintable() else " " for character in answer.reason)
    own = own[:_REASON_CHARACTERS].strip()
    return f"{words} (code {answer.code:#04x}{': ' if own else ''}{own})"
