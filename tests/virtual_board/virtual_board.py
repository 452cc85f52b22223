"""A virtual board as tests and people hold it: power, inputs, console."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from tests.virtual_board.radar import Radar

ROOT = Path(__file__).parents[2]
FLASH_KB = 2048
"""What the ESP32 port has for files on 4 MB of flash."""
WAIT_S = 30


class VirtualBoard:
    """A board with blank flash, or with what it had in this folder. Entered, it is powered."""

    def __init__(self, folder: Path, *, flash_kb: int = FLASH_KB, unique_id: str = "24:6f:28:aa:bb:cc") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._flash_kb = flash_kb
        self._ctl = folder / "ctl"
        self._ctl.mkdir(exist_ok=True)
        self._supervisor: subprocess.Popen[str] | None = None
        self.port = ""
        self.radar = Radar()
        self.put("uart2", str(self.radar.port))
        self.put("unique_id", unique_id)

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.virtual_board.supervisor", str(self.folder), str(self._flash_kb)]
        pipe = subprocess.PIPE
        self._supervisor = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        self.port = self._line()
        self.power(on=True)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._supervisor is not None
        assert self._supervisor.stdin is not None
        self._supervisor.stdin.close()
        try:
            self._supervisor.wait(WAIT_S)
        finally:
            self._supervisor.kill()
            self._supervisor.wait()
            if self._supervisor.stdout is not None:
                self._supervisor.stdout.close()
            self.radar.close()

    def power(self, *, on: bool) -> None:
        """Cut the power, or give it. What was not on flash is gone."""
        self._tell("on" if on else "off")

    def power_cycle(self) -> None:
        """Off and on again."""
        self._tell("reset")

    def put(self, name: str, text: str) -> None:
        """Set an input; see README.md for their names."""
        new = self._ctl / f".{name}"
        new.write_text(text)
        new.rename(self._ctl / name)

    def take_away(self, name: str) -> None:
        """An input is as if it had never been set."""
        (self._ctl / name).unlink(missing_ok=True)

    def get(self, name: str) -> str:
        """What an output is, for example `out2`; empty when it was never set."""
        file = self._ctl / name
        return file.read_text() if file.exists() else ""

    def motion(self, *, seen: bool) -> None:
        """What the PIR on GPIO 27 says."""
        self.put("pin27", str(int(seen)))

    def console(self) -> str:
        """All that the board has ever said."""
        return (self.folder / "console.log").read_bytes().decode(errors="replace")

    def wait_for(self, words: str, *, after: int = 0, timeout_s: float = WAIT_S) -> None:
        """Wait until the board has said this, after so many characters of its console."""
        deadline = time.monotonic() + timeout_s
        while words not in self.console()[after:]:
            assert time.monotonic() < deadline, f"never said {words!r}; but:\n{self.console()[after:]}"
            time.sleep(0.05)

    def wait_for_prompt(self, *, after: int = 0) -> None:
        """Wait until it has started, without a program: what it is told before may be lost."""
        self.wait_for('Type "help()" for more information.', after=after)
        self.wait_for(">>>", after=self.console().rindex("for more information."))

    def _tell(self, word: str) -> None:
        assert self._supervisor is not None
        assert self._supervisor.stdin is not None
        self._supervisor.stdin.write(f"{word}\n")
        self._supervisor.stdin.flush()
        assert self._line() == "ok"

    def _line(self) -> str:
        assert self._supervisor is not None
        assert self._supervisor.stdout is not None
        line = self._supervisor.stdout.readline().strip()
        assert line, f"the board has ended; its console:\n{self.console()}"
        return line
