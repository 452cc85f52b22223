"""Gateways for tests of commands; `site` is the one inside the test's event loop."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway_here import GatewayHere
from tests.gateway_process import GatewayProcess


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[GatewayHere]:
    """A folder for a gateway; it runs between `start` and `stop`, beside the test."""
    own_site = GatewayHere(tmp_path)
    yield own_site
    own_site.stop()


@pytest.fixture
def own_process(tmp_path: Path) -> Iterator[GatewayProcess]:
    """The same, where it has to be a process."""
    own_process = GatewayProcess(tmp_path)
    yield own_process
    own_process.kill()
