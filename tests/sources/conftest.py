from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources.pty_port import PtyPort


@pytest.fixture
def line(tmp_path: Path) -> Iterator[PtyPort]:
    port = PtyPort(tmp_path / "ttyUSB0")
    yield port
    port.close()
