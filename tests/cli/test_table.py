"""What a table shows is shown as it is."""

import pytest

from gateway.cli.table import show_table


def test_nothing_is_read_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("device", "room"), [("kitchen", "[bold]hall[/] [/x] :bug:")])
    assert capsys.readouterr().out.split() == ["device", "room", "kitchen", "[bold]hall[/]", "[/x]", ":bug:"]


def test_a_uuid_is_never_broken(capsys: pytest.CaptureFixture[str]) -> None:
    uuid = "0123abcd-0123-abcd-0123-0123456789ab"
    show_table(("id", "what"), [(uuid, "long " * 100)], with_uuids=True, width=60)
    assert uuid in capsys.readouterr().out


def test_nothing_is_cut_off_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"device-{number}-" + "x" * 60 for number in range(4)]
    show_table(("a", "b", "c", "d"), [names])
    assert capsys.readouterr().out.splitlines()[-1].split() == names
