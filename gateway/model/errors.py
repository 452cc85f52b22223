"""One family of errors: each says what happened, and its hint says what to do next."""


class NeurogateError(Exception):
    """Base of every error that is meant to be read by a person.

    `exit_code` is what the command line returns when this error ends it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class ConfigError(NeurogateError):
    """The configuration cannot be used as it is (EX_CONFIG of sysexits.h)."""

    exit_code = 78


class PortInUse(NeurogateError):
    """A listener's port is taken."""


class DataDirLocked(NeurogateError):
    """Another gateway holds the data directory."""


class SchemaTooNew(NeurogateError):
    """A database was written by a newer release."""


class StoreFailed(NeurogateError):
    """A commit did not reach the disk; nothing of it was acknowledged."""


class NotFound(NeurogateError):
    """The named thing does not exist."""


class AlreadyExists(NeurogateError):
    """The name is taken."""


class BadInput(NeurogateError):
    """A message from outside cannot be used; `code` is stable for machines."""

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
