"""A gateway of its own for each test of a command; a file that needs more of it has its own `site`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway_process import GatewayProcess


@pytest.fixture
def site(tmp_path: Path) -> Iterator[GatewayProcess]:
    site = GatewayProcess(tmp_path)
    yield site
    site.kill()
