"""A folder for tests under both interpreters, and a flash whose power goes after so many writes."""

import os
import sys

from app import spill, spill_file


class PowerCut(BaseException):
    """Nothing of the program runs on after it."""


def folder(name):
    """Return a new empty folder."""
    path = "%s/board-%s-%s" % (os.getenv("TMPDIR") or "/tmp", name, os.urandom(6).hex())
    os.mkdir(path)
    return path


def remove(path):
    """Remove a folder and what is in it."""
    for name in os.listdir(path):
        try:
            os.remove(path + "/" + name)
        except OSError:
            remove(path + "/" + name)
    os.rmdir(path)


class CutFile:
    """A file of a flash that takes `budget[0]` more bytes, then the power is gone."""

    def __init__(self, file, budget):
        self._file = file
        self._budget = budget

    def write(self, data):
        part = data[: self._budget[0]]
        self._file.write(part)
        self._budget[0] -= len(part)
        if len(part) < len(data):
            self._file.close()
            raise PowerCut

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()


class CutAfter:
    """While it lasts, what the spill writes ends in a power cut after so many bytes."""

    def __init__(self, size):
        self._budget = [size]

    def _open(self, path, mode="r"):
        file = open(path, mode)  # noqa: SIM115 - whoever asked for it closes it
        return CutFile(file, self._budget) if "w" in mode else file

    def __enter__(self):
        spill_file.open = self._open
        sys.modules["app.spill_file"] = spill_file  # else it is read again when it is needed
        self._forget, spill.forget = spill.forget, lambda name: None

    def __exit__(self, *_):
        del spill_file.open
        spill.forget = self._forget
