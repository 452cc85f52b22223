"""`neurogate buffer erase`, beside a running gateway and without one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway_here import GatewayHere
from tests.gateway_process import GatewayProcess, reading


@pytest.fixture(params=["running", "not running"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GatewayProcess]:
    """A site with readings of two boards."""
    site = GatewayHere(tmp_path)
    site.start()
    try:
        for name in ("bedroom", "hall"):
            added = site.json("device", "add", name)
            site.post(added["password"], *(reading(name, seq) for seq in range(5)))
        if request.param == "not running":
            site.stop()
        yield site
    finally:
        site.kill()


def test_it_says_what_it_erased_and_that_the_board_still_has_access(site: GatewayProcess) -> None:
    done = site.neurogate("buffer", "erase", "--device", "bedroom", "--yes")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "Erased: 5 readings, 0 dead letters, 0 quarantined and 0 kept MQTT messages.",
        "bedroom still has access and may send more; to end that: neurogate device revoke bedroom",
    ]
    assert "erase: 5 of 5 rows" in done.stderr
    assert site.json("buffer", "status")["buffer"]["readings"] == 5
    assert site.json("device", "show", "hall")["last_reading_at"] is not None
    assert site.json("device", "show", "bedroom")["status"] == "active"
    site.neurogate("device", "revoke", "bedroom")
    done = site.neurogate("buffer", "erase", "--device", "bedroom", "--yes")
    assert (done.returncode, done.stdout) == (0, "Nothing is stored of bedroom in default.\n")


def test_without_a_yes_nothing_is_erased(site: GatewayProcess) -> None:
    assert site.neurogate("buffer", "erase", "--device", "bedroom").returncode == 1
    assert site.json("buffer", "status")["buffer"]["readings"] == 10


def test_it_says_which_topics_of_routes_do_not_tell_whose_they_are(site: GatewayProcess) -> None:
    with (site.folder / "neurogate.toml").open("a") as file:
        for topic in ("packs/#", "devices/+/packs", "bundles/+"):
            file.write(f'[[ingest.routes]]\ntopic = "{topic}"\nparser = "senml"\n')
    done = site.neurogate("buffer", "erase", "--device", "bedroom", "--yes")
    assert "What the broker keeps under packs/#, bundles/+ stays: there topics do not say whose it is.\n" in done.stdout
