"""An error crosses the control socket as the class it was."""

import pytest

from gateway.model.errors import (
    AlreadyExists,
    BadInput,
    ConfigError,
    NeurogateError,
    NotFound,
    StoreFailed,
    error_document,
    error_from_document,
)


@pytest.mark.parametrize(
    "error",
    [
        NotFound("a", hint="b"),
        AlreadyExists("a", hint="b"),
        ConfigError("a", hint="b"),
        StoreFailed("a", hint="b"),
        NeurogateError("a"),
        BadInput("invalid_device_id", "a", hint="b"),
    ],
)
def test_an_error_comes_back_as_it_was(error: NeurogateError) -> None:
    back = error_from_document(error_document(error.code, error.message, error.hint))
    assert type(back) is type(error)
    assert (back.code, back.message, back.hint) == (error.code, error.message, error.hint)
    assert back.exit_code == error.exit_code


def test_every_code_is_one_class() -> None:
    codes = [kind.code for kind in NeurogateError.__subclasses__() if kind is not BadInput]
    assert len(set(codes)) == len(codes)
    assert NeurogateError.code not in codes
