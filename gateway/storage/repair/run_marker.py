"""A file that is there while a gateway runs: one that is found at the start tells of an unclean stop.

It holds what was found damaged meanwhile, one JSON object a line, so that it is said until a clean stop.
"""

import json
import logging
import os
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from gateway.model.errors import NeurogateError, StoreFailed
from gateway.storage.disk import sync_folder

logger = logging.getLogger(__name__)


@dataclass(slots=True, frozen=True)
class Damage:
    """Something that was found, and what was done about it."""

    database: str
    words: str


class RunMarker(AbstractContextManager["RunMarker"]):
    """The file, for the time of the context. What cannot be written is only logged: a gateway starts all the same."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.was_unclean = False
        """Whether the gateway before this one was killed, or lost power."""
        self.is_clean = True
        """To be unset when the stop is none after which all is well."""
        self.found: list[Damage] = []

    def __enter__(self) -> Self:
        """Put the file on disk; returns at once when it is there already."""
        self.was_unclean = self._path.exists()
        try:
            if self.was_unclean:
                self.found = [Damage(**json.loads(line)) for line in self._path.read_text("utf-8").splitlines()]
            else:
                self._path.touch(mode=0o600)
                sync_folder(self._path.parent)
        except (OSError, ValueError, TypeError) as error:  # cut off by the power cut it tells of
            logger.warning("the note of a running gateway is unusable: %s", error, extra={"path": str(self._path)})
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Remove it after a clean stop; an error that is meant for a person is one, too, unless it is the store's."""
        explained = kind is not None and issubclass(kind, NeurogateError) and not issubclass(kind, StoreFailed)
        if self.is_clean and (kind is None or explained):
            self._path.unlink(missing_ok=True)

    def add(self, database: str, words: str) -> None:
        """Remember what was found, until the next clean stop."""
        damage = Damage(database, words)
        if damage in self.found:
            return
        self.found.append(damage)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(damage)) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            logger.warning("damage could not be noted: %s", error, extra={"path": str(self._path)})
