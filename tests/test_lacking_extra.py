"""An integration whose extra is not installed is in error, says what to install, and stops no other."""

from pathlib import Path
from typing import Any

import pytest

from cloud_sync.integrations import golioth
from gateway.cli.check import _integration
from gateway.config import load
from gateway.model.errors import ConfigError
from gateway.operations.integrations import add_integration, list_integrations, show_integration
from tests.site import running_site

GOLIOTH: dict[str, Any] = {"type": "golioth", "name": "golioth", "psk_id": "a@p", "psk": "a key", "host": "127.0.0.1"}
WEBHOOK: dict[str, Any] = {"type": "webhook", "name": "hook", "url": "http://127.0.0.1:1/"}
INSTALL = "pip install 'neurogate[golioth]'"


@pytest.fixture
def _without_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golioth, "NOT_INSTALLED", "pyOpenSSL is not installed")


@pytest.mark.usefixtures("_without_extra")
async def test_it_is_in_error_keeps_its_place_and_stops_no_other(tmp_path: Path) -> None:
    async with running_site(tmp_path, integrations=[GOLIOTH, WEBHOOK]) as site:
        integrations = site.gateway._running.integrations
        assert [one.id for one in integrations.running()] == ["hook"]
        (lacking,) = integrations.not_started()
        assert (lacking.id, INSTALL in lacking.why) == ("golioth", True)
        assert {cursor.name for cursor in await site.log.cursors()} >= {"golioth", "hook"}
        settings: dict[str, Any] = {"psk_id": "a@p", "psk": "a key"}
        new = await site.command(
            add_integration, organization_id="acme", integration_type="golioth", name="theirs", settings=settings
        )
        shown = await site.command(show_integration, integration_id=new.id)
        assert (shown.status, INSTALL in shown.error) == ("error", True)
        assert len(await site.command(list_integrations)) == 3


@pytest.mark.usefixtures("_without_extra")
async def test_what_only_hears_needs_no_extra(tmp_path: Path) -> None:
    hears = {"type": "golioth", "name": "golioth", "webhook_secret": "a secret for them"}
    async with running_site(tmp_path, integrations=[hears]) as site:
        assert [one.id for one in site.gateway._running.integrations.running()] == ["golioth"]


@pytest.mark.usefixtures("_without_extra")
def test_check_says_so(tmp_path: Path) -> None:
    file = tmp_path / "neurogate.toml"
    lines = "\n".join(f'{key} = "{value}"' for key, value in GOLIOTH.items())
    file.write_text(f"[[integrations]]\n{lines}\n")
    loaded = load(file, {})
    with pytest.raises(ConfigError, match=r"neurogate\[golioth\]"):
        _integration(loaded.settings.integrations[0], loaded)
