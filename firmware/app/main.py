"""Puts the program together and runs it. Everything that touches the chip comes in as `hardware` (app/hardware.py)."""

import asyncio
import binascii
import os

from micropython import const

from app import VERSION, config, files
from app.clock import Clock
from app.commands import Commands
from app.connection import Connection
from app.crash_log import CrashLog
from app.mqtt import MqttClient
from app.outbox import Outbox
from app.settings import Settings
from app.slot import Slot
from app.spill import Spill
from app.status import Status, will
from app.supervisor import Part, Supervisor
from app.telemetry import Telemetry
from app.timekeeper import Timekeeper
from app.wifi import Wifi

_TRIAL_MS = const(300_000)
_SAFE_MS = const(900_000)
_LAST_WORDS_MS = const(5_000)
_IDENTIFY_S = const(10)


class Application(Part):
    """All parts of one start. It is one itself: it looks after trials, and ends the start when somebody wants that.

    `safe` is why nothing but the connection is started; empty in a usual start.
    """

    name = "application"

    def __init__(self, hardware, safe=""):
        root = hardware.root
        self._hardware = hardware
        clock = Clock(hardware.ticks, hardware.set_rtc)
        super().__init__(clock)
        self._safe = safe
        self._reset_wanted = ""
        self._config = config.load(root + "/config.json")
        self._boot_id = binascii.hexlify(os.urandom(4)).decode()
        self._crash_log = CrashLog(root + "/crash.log", clock, self._boot_id)
        self._settings = Settings(root + "/settings.json")
        self._slot = Slot(root + "/slot.json")
        self._cause = hardware.reset_cause()
        self._outbox = Outbox(clock, self._boot_id, Spill(root + "/spill", hardware.flash_free))
        self._connect_parts()
        drivers = [] if safe else self._drivers()
        methods = {"identify": self._identify, "restart": self._restart, "crash_log": self._read_crash_log}
        methods["read_back"] = self._read_back
        for driver in drivers:
            methods.update(driver.methods)
        self._methods = methods
        self._commands = Commands(clock, self._client, self._topic + "commands/", methods)
        self._parts += [self._commands, self] + drivers
        if not safe:
            from app.readings import Readings  # late, as the drivers: in safe mode it may be what fails

            self._drivers_health = drivers
            self._parts.append(Readings(clock, drivers, self._outbox, self._settings.now["readings"], self._health))

    def _connect_parts(self):
        """What is needed to talk to the gateway, also in safe mode."""
        clock, hardware = self._clock, self._hardware
        device_id, organization_id = self._config["device_id"], self._config["organization_id"]
        gateway, mqtt, wifi = self._config["gateway"], self._config["mqtt"], self._config["wifi"]
        self._topic = "org_%s/devices/%s/" % (organization_id, device_id)
        connection = self._settings.now["connection"]
        self._client = MqttClient(
            clock,
            (device_id, mqtt["username"], mqtt["password"]),
            (self._topic + "status", will(self._boot_id)),
            (self._topic + "commands/+", self._topic + "config"),
            self._hear,
            connection["keepalive_s"],
        )
        self._status = Status(self._client, self._topic + "status", self._boot_id, self._condition, self._settings.keep)
        self._wifi = Wifi(clock, hardware.station(device_id), wifi["ssid"], wifi["password"])
        timekeeper = Timekeeper(
            clock, self._wifi, connection["ntp_host"], self._gateway_address, gateway.get("http_port", 8080)
        )
        self._connection = Connection(
            clock, self._wifi, timekeeper, self._client, gateway, hardware.resolve, self._ca_der(), self._status.say
        )
        head = '{"device_id":"%s","firmware":"%s"' % (device_id, VERSION)
        self._telemetry = Telemetry(clock, self._outbox, self._client, self._topic + "telemetry", head, self._boot_id)
        self._drivers_health = []
        self._parts = [self._wifi, timekeeper, self._connection, self._telemetry]

    def _gateway_address(self):
        return self._connection.address()

    def _ca_der(self):
        try:
            with open(self._hardware.root + "/ca.der", "rb") as file:
                return file.read()
        except OSError as error:
            if self._config["gateway"].get("tls"):
                raise ValueError("ca.der is missing: flash the board again") from error
            return None

    def _drivers(self):
        """The sensors that are fitted."""
        from drivers.ld2410 import Ld2410
        from drivers.mq_sensor import MqSensor
        from drivers.pir import Pir

        hardware, clock, settings = self._hardware, self._clock, self._settings.now
        drivers = []
        if settings["ld2410"]["fitted"]:
            drivers.append(Ld2410(hardware.open_radar, settings["ld2410"], clock))
        if settings["pir"]["fitted"]:
            drivers.append(Pir(hardware.motion(), settings["pir"], clock))
        if settings["mq134"]["fitted"]:
            circuit = dict(hardware.gas_divider(), **settings["mq134"])
            r0_ohm = files.read_json(hardware.root + "/calibration.json", {}).get("r0_ohm")
            drivers.append(MqSensor(hardware.gas(), circuit, clock, r0_ohm, self._keep_calibration))
        return drivers

    def _keep_calibration(self, r0_ohm):
        files.write_json(self._hardware.root + "/calibration.json", {"r0_ohm": r0_ohm})

    # What the board says of itself

    def _health(self):
        """Return the fields that go with every reading."""
        heap_free, system_free = self._hardware.heap_free()
        fields = {
            "heap_free": heap_free,
            "system_heap_free": system_free,
            "uptime_s": self._clock.uptime_ms() // 1000,
            "reset_cause": self._cause,
            "dropped": self._outbox.dropped,
            "waiting": self._outbox.waiting,
            "waiting_files": self._outbox.files,
            "connections": self._connection.count,
        }
        rssi_dbm = self._wifi.rssi_dbm()
        if rssi_dbm is not None:
            fields["rssi_dbm"] = rssi_dbm
        return fields

    def _condition(self):
        """Return the fields that the status says besides."""
        fields = {"reset_cause": self._cause, "config": {"version": self._settings.version}}
        if self._settings.refused:
            fields["config"]["refused"] = self._settings.refused
        if self._safe:
            fields["safe_mode"] = self._safe
        if self._crash_log.last:
            fields["crash"] = self._crash_log.last
        for driver in self._drivers_health:
            fields.update(driver.health())
        fields.pop("radar_skipped", None)  # a count that always grows is no news
        return fields

    # What the gateway says

    def _hear(self, topic, payload):
        """Take in a message; it must not wait."""
        rest = topic[len(self._topic) :]
        if rest == "config":
            self._hear_config(payload)
        elif rest.startswith("commands/"):
            self._commands.hear(rest[len("commands/") :], payload)

    def _hear_config(self, payload):
        if payload is None:
            self._settings.refuse(None, "the configuration is too long")
        elif payload and self._settings.offer(payload):
            print("settings: new ones, restarting")
            self.restart("settings", is_wanted=True)

    async def _identify(self, params):
        """Blink for some seconds."""
        seconds = params.get("seconds", _IDENTIFY_S)
        if not isinstance(seconds, int) or not 1 <= seconds <= 60:
            raise ValueError("seconds must be a whole number from 1 to 60")
        for on in (True, False) * (2 * seconds):
            self._hardware.led(on)
            await asyncio.sleep_ms(250)
        return {"seconds": seconds}

    async def _restart(self, _):
        """Restart when the answer has arrived."""
        self._restart_soon = asyncio.create_task(self._restart_later())
        return {"restarting": True}

    async def _restart_later(self):
        for _ in range(_LAST_WORDS_MS // 100):
            await asyncio.sleep_ms(100)
            if not self._client.waiting:
                break
        self.restart("command", is_wanted=True)

    async def _read_crash_log(self, _):
        return {"text": self._crash_log.read(), "since_start": self._crash_log.count}

    async def _read_back(self, params):
        """Return what the board works with, and what its radar says that it is set to."""
        result = {"settings": self._settings.now, "firmware": VERSION, "serial": self._hardware.serial()}
        if "radar_parameters" in self._methods:
            try:
                result["radar"] = await self._methods["radar_parameters"](params)
            except Exception as error:  # noqa: BLE001 - the rest is worth knowing without it
                result["radar"] = str(error)
        return result

    # Its own task

    def restart(self, reason, is_wanted=False):
        """End this start as soon as what waits is on the flash."""
        if not self._reset_wanted:
            self._reset_wanted = reason
            print("restart:", reason)
            self._outbox.flush()
            if is_wanted:
                self._slot.forgive()
            self._hardware.reset()

    async def run(self):
        """Look after what takes its time: trials, a good start, safe mode, the status."""
        while True:
            await self.pause(1_000)
            uptime_ms = self._clock.uptime_ms()
            connected_ms = self._connection.connected_ms()
            if not self._safe:
                self._slot.look(uptime_ms, connected_ms)
            elif uptime_ms > _SAFE_MS:
                self.restart("safe mode is over", is_wanted=True)
            if self._settings.is_on_trial and (self._safe or uptime_ms > _TRIAL_MS):
                self._settings.roll_back("the board did not reconnect with it")
                self.restart("settings rolled back", is_wanted=True)
            if connected_ms:
                self._status.say_news()

    async def start(self):
        """Run all parts for ever."""
        print("neurogate %s: %s, start %s (%s)" % (VERSION, self._config["device_id"], self._boot_id, self._cause))
        if self._safe:
            print("safe mode:", self._safe)
        watchdog = self._hardware.watchdog()
        await Supervisor(self._clock, self._parts, watchdog, self._crash_log, self.restart).run()


def run(safe=""):
    """Run on this board until it is reset."""
    from app.hardware import Hardware

    hardware = Hardware()
    try:
        asyncio.run(Application(hardware, safe).start())
    except KeyboardInterrupt:
        hardware.leave_to_console()
        raise
