"""The program of a board, put together by assembly.py. What touches the chip comes in as `hardware` (hardware.py)."""

import asyncio
import gc

from micropython import const

from app import VERSION, files
from app.on_demand import forget
from app.supervisor import Part, Supervisor

TYPE_CHECKING = const(0)
if TYPE_CHECKING:  # what assembly.py gives an Application; on a board these lines do not exist
    from app.clock import Clock
    from app.commands import Commands
    from app.connection import Connection
    from app.crash_log import CrashLog
    from app.outbox import Outbox
    from app.settings import Settings
    from app.slot import Slot
    from app.status import Status
    from app.wifi import Wifi

_TRIAL_MS = const(300_000)
_SAFE_MS = const(900_000)
_GARBAGE_BYTES = const(2_048)
"""Collected so often, so that what stays lies together: a heap full of holes is used up long before it is full."""


class Application(Part):
    """All parts of one start. It is one itself: it looks after trials, and ends the start when somebody wants that.

    `safe` is why nothing but the connection is started; empty in a usual start.
    """

    name = "application"
    methods = ("identify", "restart", "crash_log", "read_back")

    clock: "Clock"
    commands: "Commands"
    connection: "Connection"
    crash_log: "CrashLog"
    outbox: "Outbox"
    settings: "Settings"
    slot: "Slot"
    status: "Status"
    wifi: "Wifi"
    boot_id: str
    topic: str
    drivers: list
    parts: list

    def __init__(self, hardware, safe=""):
        gc.threshold(_GARBAGE_BYTES)
        from app.assembly import assemble

        forget("app.assembly")
        self.hardware = hardware
        self.safe = safe
        self.cause = hardware.reset_cause()
        self._reset_wanted = ""
        self._offered = None
        self._reads_back = False
        assemble(self)
        super().__init__(self.clock)

    # What the board says of itself

    def health(self):
        """Return the fields that go with every reading."""
        heap_free, system_free = self.hardware.heap_free()
        fields = {
            "heap_free": heap_free,
            "system_heap_free": system_free,
            "uptime_s": self.clock.uptime_ms() // 1000,
            "reset_cause": self.cause,
            "dropped": self.outbox.dropped,
            "waiting": self.outbox.waiting,
            "waiting_files": self.outbox.files,
            "connections": self.connection.count,
        }
        rssi_dbm = self.wifi.rssi_dbm()
        if rssi_dbm is not None:
            fields["rssi_dbm"] = rssi_dbm
        return fields

    def condition(self):
        """Return the fields that the status says besides."""
        fields = {"reset_cause": self.cause, "config": {"version": self.settings.version}}
        if self.settings.refused:
            fields["config"]["refused"] = self.settings.refused
        if self.safe:
            fields["safe_mode"] = self.safe
        if self.crash_log.last:
            fields["crash"] = self.crash_log.last
        for driver in self.drivers:
            fields.update(driver.health())
        fields.pop("radar_skipped", None)  # a count that always grows is no news
        return fields

    def is_asking(self):
        """Whether a sensor is asked something, or all is read back: that needs much memory, so what can wait does."""
        return self._reads_back or any(driver.is_configuring for driver in self.drivers)

    def calibration_path(self):
        """Return the file with what the gas sensor has in clean air."""
        return self.hardware.root + "/calibration.json"

    def keep_calibration(self, r0_ohm):
        """Store it. Raises OSError."""
        files.write_json(self.calibration_path(), {"r0_ohm": r0_ohm})

    # What the gateway says

    def hear(self, topic, payload):
        """Take in a message; it must not wait."""
        rest = topic[len(self.topic) :]
        if rest == "config":
            self._hear_config(payload)
        elif rest.startswith("commands/"):
            self.commands.hear(rest[len("commands/") :], payload)

    def _hear_config(self, payload):
        if payload is None:
            self.settings.refuse(None, "the configuration is too long")
        elif payload:
            self._offered = payload

    def _take_settings(self):
        if self._offered is None or self.is_asking():
            return
        payload, self._offered = self._offered, None
        if self.settings.offer(payload):
            print("settings: new ones, restarting")
            self.restart("settings", is_wanted=True)

    async def carry_out(self, method, params):
        """Carry out one of its own commands. Raises ValueError."""
        if method != "read_back":
            from app.own_commands import METHODS

            forget("app.own_commands")
            return await METHODS[method](self, params)
        from app.read_back import read_back

        forget("app.read_back")
        self._reads_back = True
        try:
            return await read_back(self, params)
        finally:
            self._reads_back = False

    # Its own task

    def restart(self, reason, is_wanted=False):
        """End this start as soon as what waits is on the flash."""
        if not self._reset_wanted:
            self._reset_wanted = reason
            print("restart:", reason)
            self.outbox.flush()
            if is_wanted:
                self.slot.forgive()
            self.hardware.reset()

    async def run(self):
        """Look after what takes its time: trials, a good start, safe mode, the status."""
        while True:
            await self.pause(1_000)
            uptime_ms = self.clock.uptime_ms()
            connected_ms = self.connection.connected_ms()
            if not self.safe:
                self.slot.look(uptime_ms, connected_ms)
            elif uptime_ms > _SAFE_MS:
                self.restart("safe mode is over", is_wanted=True)
            if self.settings.is_on_trial and (self.safe or uptime_ms > _TRIAL_MS):
                self.settings.roll_back("the board did not reconnect with it")
                self.restart("settings rolled back", is_wanted=True)
            self._take_settings()
            if connected_ms:
                self.status.say_news()

    async def start(self):
        """Run all parts for ever."""
        print("neurogate %s: %s, start %s (%s)" % (VERSION, self.topic.split("/")[2], self.boot_id, self.cause))
        if self.safe:
            print("safe mode:", self.safe)
        watchdog = self.hardware.watchdog()
        await Supervisor(self.clock, self.parts, watchdog, self.crash_log, self.restart).run()


def run(safe=""):
    """Run on this board until it is reset."""
    from app.hardware import Hardware

    hardware = Hardware()
    try:
        asyncio.run(Application(hardware, safe).start())
    except KeyboardInterrupt:
        hardware.leave_to_console()
        raise
