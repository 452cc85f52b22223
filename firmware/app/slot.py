"""What the launcher (main.py at the root) counts, and this program tells it: /slot.json."""

from micropython import const

from app import files

_STEADY_MS = const(300_000)
_CONNECTED_MS = const(60_000)


class Slot:
    """A start is good after a minute with the gateway, or five in which nothing failed; a release only by the first."""

    def __init__(self, path):
        self._path = path
        self._is_confirmed = False
        self._is_steady = False

    def look(self, uptime_ms, connected_ms):
        """Say that the start was good, once it was."""
        if connected_ms >= _CONNECTED_MS and not self._is_confirmed:
            self._is_confirmed = self._is_steady = True
            self._write(0, confirmed=True)
        elif uptime_ms >= _STEADY_MS and not self._is_steady:
            self._is_steady = True
            self._write(0)

    def forgive(self):
        """This start ends because it was asked to, and is no failed one."""
        if not self._is_steady:
            self._write(-1)

    def _write(self, more, confirmed=False):
        slot: dict = files.read_json(self._path, {"active": "a", "confirmed": True})
        slot["starts"] = max(0, slot.get("starts", 0) + more) if more else 0
        slot["confirmed"] = bool(slot.get("confirmed")) or confirmed
        try:
            files.write_json(self._path, slot)
        except OSError as error:
            print("slot:", error)
