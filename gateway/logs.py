"""Logging: one event a line, as text or JSON, without secrets and without floods.

- what a call passes in `extra` becomes `key=value`, or a member of the JSON object
- values of keys that look secret, and credentials in URLs, are masked before anything is written
- a warning or error that comes again within a minute is counted; the count follows as one line
- in text a traceback follows its event, indented; in JSON it is the member `exception`

Times are UTC. It writes to one stream; files and rotation are the business of journald. The last lines stay in memory:
a support bundle has them wherever the stream goes.
"""

import json
import logging
import re
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from gateway.config.masking import masked, without_credentials

REPEAT_WINDOW_S = 60.0
RECENT_LINES = 500

_RECENT_LINE_CHARACTERS = 4_000
_MOST_COUNTED = 1_000  # different messages at once; beyond that the oldest count ends early
_QUIET_LOGGERS = ("amqtt", "transitions")  # below WARNING they show payloads
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PLAIN = re.compile(r"[^\s\"'=\\\x00-\x1f\x7f]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

Extras = Mapping[str, Any]


def configure(level: str, style: Literal["auto", "text", "json"], stream: TextIO | None = None) -> None:
    """Send all logging to `stream` (stderr) from now on; `auto` is text on a terminal and JSON otherwise."""
    stream = stream or sys.stderr
    as_text = style == "text" or (style == "auto" and stream.isatty())
    handler = _Handler(stream)
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    root = logging.getLogger()
    for earlier in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(earlier)
        earlier.close()
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def recent_lines() -> list[str]:
    """Return the last lines that were written, the oldest first; none before `configure`."""
    handlers = (handler for handler in logging.getLogger().handlers if isinstance(handler, _Handler))
    return [line for handler in handlers for line in list(handler.recent)]


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that `configure` may be called again without touching anybody else's."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.recent: deque[str] = deque(maxlen=RECENT_LINES)
        self._repeats = RepeatFilter(self.handle)
        self.addFilter(self._repeats)
        self.addFilter(RedactFilter())

    def handle(self, record: logging.LogRecord) -> bool:
        """Write a call whose arguments do not fit without them: it must not fail its caller."""
        try:
            record.getMessage()
        except Exception as error:  # noqa: BLE001 - any argument's __str__ may fail
            record.msg, record.args = f"{record.msg} (arguments do not fit: {type(error).__name__})", ()
        return bool(super().handle(record))

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and remember its beginning."""
        line = super().format(record)
        self.recent.append(line[:_RECENT_LINE_CHARACTERS])
        return line

    def close(self) -> None:
        """Tell the counts that are still open."""
        self._repeats.flush()
        super().close()


class RedactFilter(logging.Filter):
    """Masks secrets in the message, in the extras and in the traceback of a record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; it always passes."""
        record.msg, record.args = without_credentials(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = without_credentials(record.exc_text)
        vars(record).update({key: masked(key, value) for key, value in extras_of(record).items()})
        return True


@dataclass(slots=True)
class _Repeats:
    message: str
    until: float
    count: int = 0


_SUBJECTS = ("device_id", "client", "destination")


class _CountRecord(logging.LogRecord):
    """Says how often a message was repeated; passes every count itself."""


class RepeatFilter(logging.Filter):
    """Lets the first of equal warnings and errors pass, and counts those of the next minute.

    Equal means: same logger, level and message (but for numbers in it), about the same device, client or destination.
    Lower levels pass, since they tell what happened to whom. `emit` gets the line with the count, at the next record
    after the minute or at `flush`.
    """

    def __init__(
        self, emit: Callable[[logging.LogRecord], object], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._emit = emit
        self._monotonic = monotonic
        self._lock = threading.Lock()  # filters run outside the handler's lock
        self._open: OrderedDict[tuple[Any, ...], _Repeats] = OrderedDict()  # the oldest window first

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record is to be written."""
        if isinstance(record, _CountRecord):
            return True
        now = self._monotonic()
        with self._lock:
            while self._open and (self._first().until <= now or len(self._open) > _MOST_COUNTED):
                self._close_first()
            if record.levelno < logging.WARNING:
                return True
            about = tuple(str(getattr(record, name, "")) for name in _SUBJECTS)
            words = tuple(one for one in record.args or () if isinstance(one, str))  # numbers differ each time
            key = (record.name, record.levelno, str(record.msg), *words, *about)
            if repeats := self._open.get(key):
                repeats.count += 1
                return False
            self._open[key] = _Repeats(record.getMessage(), now + REPEAT_WINDOW_S)
        return True

    def flush(self) -> None:
        """Emit every count now."""
        with self._lock:
            while self._open:
                self._close_first()

    def _first(self) -> _Repeats:
        return next(iter(self._open.values()))

    def _close_first(self) -> None:
        (name, level, *_), repeats = self._open.popitem(last=False)
        if repeats.count:
            message = f"{repeats.message} (repeated {repeats.count} times)"
            self._emit(_CountRecord(name, level, "", 0, message, (), None))


class TextFormatter(logging.Formatter):
    """`2026-11-20T12:00:00.250Z INFO    gateway.app: Ready. mqtt_port=1883`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and a traceback's indented lines."""
        pairs = "".join(f" {key}={_as_text(value)}" for key, value in extras_of(record).items())
        line = f"{_time(record)} {record.levelname:<7} {record.name}: {record.getMessage()}{pairs}"
        trace = (record.exc_text or "").splitlines()
        return "\n    ".join(map(_visible, [line, *trace]))


class JsonFormatter(logging.Formatter):
    """`{"time": …, "level": "info", "logger": …, "message": …, …}`; an extra of such a name gets a `_`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        event: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_text:
            event["exception"] = record.exc_text
        event |= {f"{key}_" if key in event else key: value for key, value in extras_of(record).items()}
        return json.dumps(event, default=str, ensure_ascii=False)


def extras_of(record: logging.LogRecord) -> Extras:
    """Return what the call passed in `extra`."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _as_text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _visible(text: str) -> str:
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), text)
