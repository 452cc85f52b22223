"""A gateway in a process of its own, for tests of commands; `site` is the one inside the test's event loop."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway_process import GatewayProcess


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[GatewayProcess]:
    own_site = GatewayProcess(tmp_path)
    yield own_site
    own_site.kill()
