"""What the tests of promises have counted is shown at the end of the run, also when they pass."""

from collections.abc import Callable

import pytest

_LINES = pytest.StashKey[list[str]]()


@pytest.fixture
def say(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Show a line of counts in the summary of the run, and keep it in a JUnit report."""

    def line(words: str) -> None:
        record_property("counts", words)
        request.config.stash.setdefault(_LINES, []).append(words)
        print(words)

    return line


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash.get(_LINES, []):
        terminalreporter.section("promises")
        for line in lines:
            terminalreporter.write_line(line)
