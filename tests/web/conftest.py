"""What every test of the web looks at besides."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_answer_that_the_document_lacks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test in which an error was answered with a status that its route does not declare."""
    yield
    lacking = [record.getMessage() for record in caplog.get_records("call") if record.name == "gateway.web.handling"]
    assert not lacking
