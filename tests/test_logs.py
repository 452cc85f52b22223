"""One event a line, no secret, no flood."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from gateway.logs import RECENT_LINES, REPEAT_WINDOW_S, RepeatFilter, configure, recent_lines

LOG = logging.getLogger("gateway.test_logs")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root, quiet = logging.getLogger(), [logging.getLogger(name) for name in ("amqtt", "transitions")]
    before = root.handlers[:], root.level, [logger.level for logger in quiet]
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    for logger, level in zip(quiet, before[2], strict=True):
        logger.setLevel(level)


def fail(why: str) -> None:
    """Log an exception with its traceback."""
    try:
        int(why)
    except ValueError:
        LOG.exception("Failed.")


@pytest.fixture
def text() -> io.StringIO:
    stream = io.StringIO()
    configure("info", "text", stream)
    return stream


@pytest.fixture
def lines() -> io.StringIO:
    stream = io.StringIO()
    configure("info", "json", stream)
    return stream


def test_a_text_line_has_time_level_logger_message_and_extras(text: io.StringIO) -> None:
    LOG.info("Ready on %s.", "mqtt", extra={"port": 1883, "why": "a b", "none": None})
    time, rest = text.getvalue().split(" ", 1)
    assert time.endswith("Z")
    assert rest == 'INFO    gateway.test_logs: Ready on mqtt. port=1883 why="a b" none=null\n'


def test_a_json_line_has_the_same_as_members(lines: io.StringIO) -> None:
    LOG.info("Ready on %s.", "mqtt", extra={"port": 1883, "time": 4, "path": {"a": [1]}})
    event = json.loads(lines.getvalue())
    assert event.pop("time").endswith("Z")
    assert event == {
        "level": "info",
        "logger": "gateway.test_logs",
        "message": "Ready on mqtt.",
        "port": 1883,
        "time_": 4,
        "path": {"a": [1]},
    }


def test_an_event_cannot_forge_another_or_steer_the_terminal(text: io.StringIO, lines: io.StringIO) -> None:
    for stream, style in ((text, "text"), (lines, "json")):
        configure("info", style, stream)  # type: ignore[arg-type]
        LOG.info("a\nb \x1b[2J", extra={"topic": "x\ny \x9b2J"})
        assert stream.getvalue().count("\n") == 1
        assert "\x1b" not in stream.getvalue()
    assert "\x9b" not in text.getvalue()


def test_secrets_are_masked_wherever_they_stand(text: io.StringIO, lines: io.StringIO) -> None:
    for stream, style in ((text, "text"), (lines, "json")):
        configure("info", style, stream)  # type: ignore[arg-type]
        LOG.info(
            "Connecting to %s with password=%s.",
            "mqtt://me:hunter2@host",
            "hunter2",
            extra={"api_key": "hunter2", "headers": {"Authorization": "hunter2"}, "url": "x://me:hunter2@y"},
        )
        fail("token=hunter2")
        assert "hunter2" not in stream.getvalue()
        assert "x://y" in stream.getvalue()
        assert "Traceback" in stream.getvalue()


def test_a_traceback_is_a_member_in_json_and_indented_in_text(text: io.StringIO, lines: io.StringIO) -> None:
    for stream, style in ((text, "text"), (lines, "json")):
        configure("info", style, stream)  # type: ignore[arg-type]
        fail("broken")
    assert json.loads(lines.getvalue())["exception"].endswith("with base 10: 'broken'")
    first, *trace = text.getvalue().splitlines()
    assert first.endswith("Failed.")
    assert all(line.startswith("    ") for line in trace)


class Elapsing:
    """A clock to be moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Elapsing:
    return Elapsing()


def warning(text: str, *args: object, level: int = logging.WARNING, logger: str = "x") -> logging.LogRecord:
    return logging.LogRecord(logger, level, "", 0, text, args, None)


def test_a_repeated_warning_is_counted_and_the_count_told_once(clock: Elapsing) -> None:
    counts: list[logging.LogRecord] = []
    repeats = RepeatFilter(counts.append, clock)
    assert repeats.filter(warning("No answer from %s for %d s.", "a", 1))
    assert [repeats.filter(warning("No answer from %s for %d s.", "a", n)) for n in range(41)] == [False] * 41
    assert counts == []
    clock.now += REPEAT_WINDOW_S
    assert repeats.filter(warning("No answer from %s for %d s.", "b", 1))
    assert [count.getMessage() for count in counts] == ["No answer from a for 1 s. (repeated 41 times)"]
    assert repeats.filter(counts[0])
    repeats.flush()
    assert len(counts) == 1


def test_only_the_same_warning_of_the_same_logger_is_a_repetition(clock: Elapsing) -> None:
    repeats = RepeatFilter(lambda _: None, clock)
    assert repeats.filter(warning("a"))
    assert repeats.filter(warning("b"))
    assert repeats.filter(warning("a", logger="y"))
    assert repeats.filter(warning("a", level=logging.ERROR))
    assert not repeats.filter(warning("a"))


def test_what_is_said_of_another_is_no_repetition(clock: Elapsing) -> None:
    repeats = RepeatFilter(lambda _: None, clock)

    def closed(reason: str, client: str) -> logging.LogRecord:
        record = warning("connection closed: %s", reason)
        record.client = client
        return record

    assert repeats.filter(closed("foreign_topic", "kitchen"))
    assert repeats.filter(closed("not_authorized", "kitchen"))
    assert repeats.filter(closed("foreign_topic", "hall"))
    assert not repeats.filter(closed("foreign_topic", "kitchen"))


def test_what_happened_to_whom_is_never_a_repetition(clock: Elapsing) -> None:
    repeats = RepeatFilter(lambda _: None, clock)
    assert all(repeats.filter(warning("%s connected.", n, level=logging.INFO)) for n in range(3))


def test_many_different_warnings_take_bounded_memory(clock: Elapsing) -> None:
    repeats = RepeatFilter(lambda _: None, clock)
    for n in range(5_000):
        repeats.filter(warning(f"{n}"))
    assert len(repeats._open) <= 1_001


def test_open_counts_are_told_when_logging_ends(text: io.StringIO) -> None:
    for n in range(3):
        LOG.warning("No answer.", extra={"n": n})
    configure("info", "text", io.StringIO())
    assert [line.split(": ")[1] for line in text.getvalue().splitlines()] == [
        "No answer. n=0",
        "No answer. (repeated 2 times)",
    ]


def test_the_brokers_chatter_stays_out(text: io.StringIO) -> None:
    configure("debug", "text", text)
    logging.getLogger("amqtt.broker").info("payload")
    logging.getLogger("transitions.core").info("payload")
    LOG.debug("shown")
    assert "payload" not in text.getvalue()
    assert "shown" in text.getvalue()


def test_a_wrong_log_call_neither_fails_its_caller_nor_shows_its_arguments(text: io.StringIO) -> None:
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if type(handler).__name__ == "_Handler"]
    LOG.warning("Port %d.", "hunter2")
    assert text.getvalue().endswith("gateway.test_logs: Port %d. (arguments do not fit: TypeError)\n")


def test_auto_is_json_where_no_terminal_is() -> None:
    stream = io.StringIO()
    configure("info", "auto", stream)
    LOG.info("hello")
    assert json.loads(stream.getvalue())["message"] == "hello"


def test_configuring_again_replaces_only_our_own_handler(text: io.StringIO) -> None:
    other = logging.NullHandler()
    logging.getLogger().addHandler(other)
    configure("info", "json", text)
    handlers = logging.getLogger().handlers
    assert other in handlers
    assert [type(handler).__name__ for handler in handlers].count("_Handler") == 1


def test_the_last_lines_stay_in_memory_without_secrets(text: io.StringIO) -> None:
    for number in range(RECENT_LINES + 5):
        LOG.info("Line %d.", number)
    LOG.info("password=hunter2 %s", "x" * 10_000)
    lines = recent_lines()
    assert len(lines) == RECENT_LINES
    assert "Line 6." in lines[0]
    assert "hunter2" not in lines[-1]
    assert len(lines[-1]) < 5_000
    assert lines[:-1] == text.getvalue().splitlines()[-RECENT_LINES:-1]
