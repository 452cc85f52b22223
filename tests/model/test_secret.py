"""A Secret never prints, however it is asked."""

import copy
import json
import logging
import pickle
import traceback
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from gateway.logs import JsonFormatter, RedactFilter, TextFormatter
from gateway.model.secret import Secret, is_secret_name

TEXT = "planted-9f3a61c2"
SECRET = Secret(TEXT)


class Holder(BaseModel):
    """Has one."""

    key: Secret
    several: tuple[Secret, ...] = ()
    headers: dict[str, Secret] = {}


HOLDER = Holder.model_validate({"key": TEXT, "several": [TEXT], "headers": {"X": TEXT}})


def raised(secret: object) -> str:
    try:
        raise ValueError(secret)  # noqa: TRY301 - its traceback is what is asked for
    except ValueError:
        return traceback.format_exc()


def logged(secret: object) -> str:
    record = logging.makeLogRecord({"msg": "it is %s %r", "args": (secret, secret), "extra_key": secret})
    RedactFilter().filter(record)
    return TextFormatter().format(record) + JsonFormatter().format(record)


@pytest.mark.parametrize("holder", [SECRET, [SECRET], {"a": SECRET}, HOLDER], ids=["it", "list", "dict", "model"])
@pytest.mark.parametrize(
    "shown",
    [
        repr,
        str,
        "{}".format,
        "{!r}".format,
        lambda secret: f"{secret}{secret!s}{secret!r}",
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 - one of the ways
        lambda secret: json.dumps(secret, default=str),
        lambda secret: TypeAdapter(Any).dump_json(secret).decode(),
        raised,
        logged,
    ],
)
def test_it_is_not_shown(holder: object, shown: Any) -> None:
    words = shown(holder)
    assert "**********" in words
    assert TEXT not in words


def test_models_keep_it_to_themselves() -> None:
    assert TEXT not in HOLDER.model_dump_json()
    assert TEXT not in str(HOLDER.model_dump())
    assert type(HOLDER.several[0]) is Secret


@pytest.mark.parametrize("holder", [SECRET, [SECRET], HOLDER])
def test_what_would_write_it_down_refuses(holder: object) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(holder, protocol)
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps(SECRET)


def test_it_is_had_by_asking_for_it_and_copied_with_what_holds_it() -> None:
    assert SECRET.get_secret_value() == TEXT
    assert copy.deepcopy(HOLDER) == copy.copy(HOLDER) == HOLDER
    assert HOLDER.model_copy(deep=True).key.get_secret_value() == TEXT
    assert Secret("a") != Secret("b")


@pytest.mark.parametrize(("name", "holds"), [("API_KEY", True), ("a.b-1", True), ("", False), ("a b", False)])
def test_names(name: str, holds: bool) -> None:
    assert is_secret_name(name) is holds
