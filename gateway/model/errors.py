"""One family of errors: each says what happened, and its hint says what to do next.

The API and the control socket answer with the same document, `{"error": {"code", "message", "hint"}}`.
"""

from typing import Any


class NeurogateError(Exception):
    """Base of every error that is meant to be read by a person.

    `code` is stable for machines, `http_status` is what a transport answers with, and `exit_code` is what the command
    line returns when this error ends it.
    """

    code = "failed"
    http_status = 500
    exit_code = 1
    retry_after_s: int | None = None
    """When it is worth another try, if that is known; a transport says so."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class ConfigError(NeurogateError):
    """The configuration cannot be used as it is (EX_CONFIG of sysexits.h)."""

    code = "config_error"
    exit_code = 78


class PortInUse(NeurogateError):
    """A listener's port is taken."""

    code = "port_in_use"


class DataDirLocked(NeurogateError):
    """Another gateway holds the data directory."""

    code = "data_dir_locked"


class GatewaySilent(NeurogateError):
    """A gateway runs, but it does not answer."""

    code = "gateway_silent"


class SchemaTooNew(NeurogateError):
    """A database was written by a newer release."""

    code = "schema_too_new"


class StoreFailed(NeurogateError):
    """A commit did not reach the disk; nothing of it was acknowledged."""

    code = "store_failed"
    http_status = 503
    retry_after_s = 5


class StoreFull(StoreFailed):
    """There is no room, and the overflow policy is to take no more."""

    code = "store_full"


class NotFound(NeurogateError):
    """The named thing does not exist."""

    code = "not_found"
    http_status = 404


class AlreadyExists(NeurogateError):
    """The name is taken."""

    code = "already_exists"
    http_status = 409


class Conflict(NeurogateError):
    """It cannot be done as things are."""

    code = "conflict"
    http_status = 409


class BadInput(NeurogateError):
    """A message from outside cannot be used; each has a code of its own."""

    http_status = 400

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


def error_document(code: str, message: str, hint: str = "") -> dict[str, Any]:
    """Return an error in the documented shape."""
    return {"error": {"code": code, "message": message, "hint": hint}}


def error_from_document(document: dict[str, Any]) -> NeurogateError:
    """Return the error that was told as a document, of the class it had."""
    code, message, hint = (str(document["error"][name]) for name in ("code", "message", "hint"))
    for kind in NeurogateError.__subclasses__():
        if kind is not BadInput and kind.code == code:
            return kind(message, hint=hint)
    return NeurogateError(message, hint=hint) if code == NeurogateError.code else BadInput(code, message, hint=hint)
