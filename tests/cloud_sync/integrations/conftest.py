"""One mosquitto for all that is tried with a real one."""

from collections.abc import Iterator

import pytest

from tests.mosquitto import Mosquitto, mosquitto

PASSWORD = "only-in-the-password-file"


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """It lets `hub` do anything below `site/`, and takes packets of 200,000 bytes."""
    folder = tmp_path_factory.mktemp("mosquitto")
    rights = "user hub\ntopic readwrite site/#\n"
    with mosquitto(folder, users={"hub": PASSWORD}, rights=rights, more="max_packet_size 200000\n") as running:
        yield running


@pytest.fixture
def identity(real: Mosquitto) -> tuple[str, str]:
    """A certificate that it lets in where it asks for one, and its key."""
    return real.identity
