"""What the operations on credentials do beyond what their commands show."""

import pytest

from gateway.model.errors import NotFound, StoreFailed
from gateway.operations.credentials import (
    add_credential,
    list_credentials,
    revoke_credential,
    rotate_credential,
    show_credential,
)
from gateway.operations.devices import list_devices
from tests.site import Site


async def test_a_disk_that_takes_nothing_hides_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing() -> None:
        raise StoreFailed("no room")

    monkeypatch.setattr(site.gateway._running.access, "write_down", failing)
    assert [one.username for one in await site.command(list_credentials)] == ["default/kitchen"]
    assert [one.device_id for one in await site.command(list_devices)] == ["kitchen"]


async def test_no_answer_holds_a_password_but_the_one_that_made_it(site: Site) -> None:
    made = await site.command(add_credential, name="hub", organization_id="default")
    rotated = await site.command(rotate_credential, username="hub@default")
    shown = repr(await site.command(list_credentials)) + repr(
        await site.command(show_credential, username="hub@default")
    )
    for one in (made, rotated):
        assert one.password
        assert one.password not in shown + repr(one)


async def test_what_is_left_of_an_old_password_is_counted_while_the_gateway_runs(site: Site) -> None:
    await site.command(rotate_credential, username="default/kitchen", overlap_ms=10_000)
    site.clock.advance(4_000)
    shown = await site.command(show_credential, username="default/kitchen")
    assert shown.old_password_left_ms == 6_000
    await site.command(rotate_credential, username="default/kitchen", overlap_ms=0)
    shown = await site.command(show_credential, username="default/kitchen")
    assert shown.old_password_left_ms is None


@pytest.mark.parametrize("username", ["", "default", "default/", "nobody", "kitchen", "Default/kitchen"])
async def test_only_a_whole_username_is_one(site: Site, username: str) -> None:
    for asked in (show_credential, rotate_credential, revoke_credential):
        with pytest.raises(NotFound):
            await site.command(asked, username=username)
    assert [one.device_id for one in await site.command(list_devices)] == ["kitchen"]
