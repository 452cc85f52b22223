"""The serial port and the power of a virtual board: `python -m tests.virtual_board.supervisor FOLDER`.

- what is opened by mpremote is one end of a pty; a real MicroPython, restarted at every reset, is behind it. The raw
  REPL is MicroPython's own: only the mode across a soft reset and the banners of a reset are imitated here
- what it says while nobody has opened the port is lost, as on a wire, but for `console.log`
- it is connected only when the simulation stands: a REPL with the machine's own files is never within reach
- a watchdog that is not fed, and a power cut, kill the process as it stands (SIGKILL)
- prints the port's name; then takes `on`, `off` and `reset` on standard input, one a line, and answers `ok`. It has no
  power before the first `on`. The end of its input ends it, so it never outlives who has started it
"""

import errno
import os
import pty
import select
import signal
import sys
import tempfile
import termios
import time
import tty
from contextlib import suppress
from pathlib import Path

START = Path(__file__).with_name("inside") / "start.py"
MICROPYTHON = Path(sys.executable).with_name("micropython")
RAW_BANNER = b"raw REPL; CTRL-B to exit\r\n>"
HEAP = "240K"
"""On 64 bits about what an ESP32 without PSRAM has."""
BANNERS = {
    "power": "rst:0x1 (POWERON_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)",
    "hard": "rst:0xc (SW_CPU_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)",
    "wdt": "rst:0x8 (TG1WDT_SYS_RST),boot:0x13 (SPI_FAST_FLASH_BOOT)",
    "deepsleep": "rst:0x5 (DEEPSLEEP_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)",
}
_TURN_S = 0.05
_READ = 4096
_INPUT_QUEUE = 1024


class Supervisor:
    """One board. Its folder has `flash.img`, `ctl/` (its inputs) and `console.log`."""

    def __init__(self, folder: Path, flash_kb: int) -> None:
        self._folder = folder
        self._flash_kb = flash_kb
        self._ctl = folder / "ctl"
        self._ctl.mkdir(parents=True, exist_ok=True)
        self._void = tempfile.mkdtemp(dir=folder)
        self._log = (folder / "console.log").open("ab", buffering=0)
        self._port, slave = pty.openpty()
        tty.setraw(slave)
        self.name = os.ttyname(slave)
        os.close(slave)
        os.set_blocking(self._port, False)
        self._pid = 0
        self._inside = -1
        self._raw = self._wants_raw = self._is_set_up = False
        self._tail = self._typed = b""
        """What it has said last, and what was sent to it that it has not taken yet."""

    def run(self) -> None:
        """Be a board until the input ends."""
        while True:
            poll = select.poll()
            poll.register(0, select.POLLIN)
            if self._pid:
                poll.register(self._inside, select.POLLIN | (select.POLLOUT if self._typed else 0))
            if self._is_open():
                poll.register(self._port, select.POLLIN)
            ready = dict(poll.poll(_TURN_S * 1000))
            if 0 in ready and not self._command():
                self._kill()
                return
            if self._pid and ready.get(self._inside, 0) & select.POLLOUT:
                self._to_inside()
            if self._pid and ready.get(self._inside, 0) & ~select.POLLOUT:
                self._from_inside()
            if self._port in ready:
                self._from_port()
            self._watch()

    def _command(self) -> bool:
        word = sys.stdin.readline().strip()
        if word in ("off", "reset"):
            self._kill()
        if word == "reset" or (word == "on" and not self._pid):
            self._start("power")
        if word:
            print("ok", flush=True)
        return bool(word)

    def _is_open(self) -> bool:
        poll = select.poll()
        poll.register(self._port, select.POLLIN)
        return not any(event & select.POLLHUP and not event & select.POLLIN for _, event in poll.poll(0))

    def _start(self, cause: str) -> None:
        for name in ("deepsleep", "reset_kind", "set_up"):
            (self._ctl / name).unlink(missing_ok=True)
        if cause != "soft":  # a soft reset does not stop a watchdog
            (self._ctl / "wdt").unlink(missing_ok=True)
        if cause == "power":  # its clock begins anew
            (self._ctl / "clock_offset_ms").write_text(str(time.time_ns() // 1_000_000))
        if cause != "soft":
            self._raw = False
            self._say(f"\r\nets Jul 29 2019 12:21:46\r\n\r\n{BANNERS[cause]}\r\n".encode())
        self._pid, self._inside = pty.fork()
        if self._pid == 0:
            self._become_micropython(cause)
        settings = termios.tcgetattr(self._inside)
        settings[0] &= ~(termios.ICRNL | termios.IXON)
        settings[1] &= ~termios.OPOST
        settings[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)  # ISIG stays: Ctrl-C interrupts
        for key in (termios.VQUIT, termios.VSUSP):
            settings[6][key] = b"\0"
        termios.tcsetattr(self._inside, termios.TCSANOW, settings)
        os.set_blocking(self._inside, False)  # neither a silent nor a deaf program may hold up the power switch
        self._tail = self._typed = b""
        self._wants_raw = self._raw
        self._is_set_up = False

    def _become_micropython(self, cause: str) -> None:
        environment = {
            "PATH": "/usr/bin:/bin",
            "TERM": "dumb",
            "MICROPYINSPECT": "1",
            "MICROPYPATH": ".frozen:/lib",
            "BOARD_FLASH": str(self._folder / "flash.img"),
            "BOARD_FLASH_KB": str(self._flash_kb),
            "BOARD_CTL": str(self._ctl),
            "BOARD_SIMULATED": str(START.with_name("simulated")),
            "BOARD_CAUSE": cause,
            "BOARD_RUNS_MAIN": "0" if self._raw else "1",
        }
        os.chdir(self._void)
        command = [str(MICROPYTHON), "-X", f"heapsize={HEAP}", "-i", str(START)]
        os.execve(MICROPYTHON, command, environment)

    def _kill(self) -> None:
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            os.close(self._inside)
            self._pid = 0

    def _from_inside(self) -> None:
        try:
            data = os.read(self._inside, _READ)
        except BlockingIOError:  # what had something to say was the one before a reset
            return
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            data = b""
        if not data:
            self._ended()
            return
        if not self._stands() and b">>>" in self._tail + data:
            self._kill()
            self._give_up(self._tail + data)
        said = self._tail + data
        if not self._is_set_up:
            self._tail = said
            return
        if self._wants_raw:  # after a soft reset in raw mode: the friendly banner is swallowed, and raw mode comes back
            if not said.rstrip(b" ").endswith(b">>>"):
                self._tail = said
                return
            self._say(said[: max(0, said.rfind(b"MicroPython "))])
            self._wants_raw, self._tail = False, b""
            self._typed += b"\r\x01"
            return
        if RAW_BANNER in said:
            self._raw = True
        self._tail = said[-64:]
        self._say(data)

    def _stands(self) -> bool:
        """Whether the simulation has taken the place of the machine; from then on the port is connected."""
        if not self._is_set_up and (self._ctl / "set_up").exists():
            self._is_set_up = True
        return self._is_set_up

    def _give_up(self, said: bytes = b"") -> None:
        self._log.write(self._tail + said)
        sys.exit("The board could not be set up; see console.log.")

    def _ended(self) -> None:
        """The process has ended, or was killed: which kind of reset that was, a file says."""
        _, status = os.waitpid(self._pid, 0)
        os.close(self._inside)
        self._pid = 0
        code = os.waitstatus_to_exitcode(status)
        if not self._stands():
            self._give_up()
        noted = self._ctl / "reset_kind"
        kind = noted.read_text().strip() if noted.exists() else "hard" if code < 0 else "soft"
        if kind == "deepsleep":
            time.sleep(int((self._ctl / "deepsleep").read_text()) / 1000)
        if kind == "soft":
            self._say(b"\r\nMPY: soft reboot\r\n")
        self._start(kind)

    def _from_port(self) -> None:
        try:
            data = os.read(self._port, _READ)
        except OSError as error:  # who had opened it has closed it
            if error.errno != errno.EIO:
                raise
            return
        if data in (b"\x02", b"\r\x02"):
            self._raw = False
        if self._pid and self._stands():
            self._typed += data

    def _to_inside(self) -> None:
        with suppress(OSError):  # it takes nothing now, or has just ended
            self._typed = self._typed[os.write(self._inside, self._typed[:_INPUT_QUEUE]) :]

    def _say(self, data: bytes) -> None:
        self._log.write(data)
        while data and self._is_open():
            try:
                data = data[os.write(self._port, data) :]
            except BlockingIOError:
                select.select([], [self._port], [], _TURN_S)

    def _watch(self) -> None:
        """Bite when the watchdog has not been fed."""
        fed = self._ctl / "wdt"
        try:
            age_ms, limit_ms = (time.time() - fed.stat().st_mtime) * 1000, int(fed.read_text() or 0)
        except (FileNotFoundError, ValueError):
            return
        if self._pid and limit_ms and age_ms > limit_ms:
            fed.unlink()
            (self._ctl / "reset_kind").write_text("wdt")
            os.kill(self._pid, signal.SIGKILL)


def main() -> None:
    """Print the port's name, and be the board."""
    board = Supervisor(Path(sys.argv[1]).resolve(), int(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C on a terminal is for who has started it
    print(board.name, flush=True)
    board.run()


if __name__ == "__main__":
    main()
