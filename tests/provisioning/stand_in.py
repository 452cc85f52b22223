"""A program as small as can be in the place of the firmware, and a gateway that only flashing talks to."""

from pathlib import Path
from typing import Any

from gateway.model.errors import AlreadyExists
from gateway.provisioning.credential import Credential
from tests.virtual_board.virtual_board import VirtualBoard

PROGRAM = """
import json, sys, time, machine
def run():
    config = json.load(open('/config.json'))
    print('stand-in runs as', config['device_id'], config['mqtt']['password'], config['wifi']['password'])
    dog = machine.WDT(timeout=500)
    while True:
        dog.feed()
        time.sleep_ms(50)
"""


def firmware(folder: Path, program: str = PROGRAM) -> Path:
    """Return a folder with sources that can be flashed."""
    for name, text in {
        "boot.py": "",
        "main.py": "import sys\nsys.path.insert(0, '/slots/a')\nfrom app.main import run\nrun()\n",
        "board.py": "LED = 2\n",
        "app/__init__.py": "",
        "app/main.py": program,
        "drivers/__init__.py": "",
    }.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


class StandInGateway:
    """Knows what it has registered; a reading has come in whenever the board has started with a login of its."""

    def __init__(self, board: VirtualBoard) -> None:
        self.board = board
        self.passwords: dict[str, str] = {}
        self.metadata: dict[str, dict[str, str]] = {}
        self.asked = 0

    def register(self, device_id: str, metadata: dict[str, str]) -> Credential:
        if device_id in self.passwords:
            raise AlreadyExists(f"{device_id} exists.")
        self.metadata[device_id] = metadata
        return self.renew(device_id)

    def renew(self, device_id: str) -> Credential:
        self.asked += 1
        self.passwords[device_id] = f"password-{self.asked}"
        return Credential("default", device_id, f"default/{device_id}", self.passwords[device_id])

    def newest_reading(self, device_id: str) -> dict[str, Any] | None:
        words = f"stand-in runs as {device_id} {self.passwords.get(device_id)}"
        count = self.board.console().count(words)
        return {"id": count, "device_id": device_id, "sensors": {"pir": {}}} if count else None


class Said:
    """What the person was told."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.last = (0, 0)

    def step(self, words: str) -> None:
        self.words.append(words)

    def progress(self, done: int, total: int) -> None:
        assert done == 0 or done > self.last[0]
        assert done <= total
        self.last = (done, total)
