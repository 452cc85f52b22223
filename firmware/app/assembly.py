"""Puts the program together. In memory only while it starts: no function of this file may be handed on."""

import binascii
import os

from app import VERSION, config, files
from app.clock import Clock
from app.commands import Commands
from app.connection import Connection
from app.crash_log import CrashLog
from app.mqtt import MqttClient
from app.on_demand import forget
from app.outbox import Outbox
from app.settings import Settings
from app.slot import Slot
from app.spill import Spill
from app.status import Status, will
from app.telemetry import Telemetry
from app.timekeeper import Timekeeper
from app.wifi import Wifi


def assemble(application):
    """Make all parts of an Application. Raises ValueError in words for a person at the console."""
    hardware = application.hardware
    root = hardware.root
    application.clock = clock = Clock(hardware.ticks, hardware.set_rtc)
    application.boot_id = boot_id = binascii.hexlify(os.urandom(4)).decode()
    application.crash_log = CrashLog(root + "/crash.log", clock, boot_id)
    application.settings = Settings(root + "/settings.json")
    application.slot = Slot(root + "/slot.json")
    application.outbox = Outbox(clock, boot_id, Spill(root + "/spill", hardware.flash_free))
    settings = dict(application.settings.tables())
    _connect(application, config.load(root + "/config.json"), settings["connection"])
    forget("app.config")
    application.drivers = []
    if not application.safe:
        from app.readings import Readings  # late, as the drivers: in safe mode it may be what fails

        application.drivers = drivers = _drivers(application, clock, settings)
        readings = Readings(clock, drivers, application.outbox, settings["readings"], application.health)
        application.parts += drivers + [readings]
    targets = [application] + application.drivers
    application.commands = Commands(clock, application.client, application.topic + "commands/", targets)
    application.parts += [application.commands, application]


def _connect(application, wanted, settings):
    """Make what is needed to talk to the gateway, also in safe mode."""
    hardware, clock, boot_id = application.hardware, application.clock, application.boot_id
    device_id, gateway, mqtt = wanted["device_id"], wanted["gateway"], wanted["mqtt"]
    application.topic = topic = "org_%s/devices/%s/" % (wanted["organization_id"], device_id)
    application.client = client = MqttClient(
        clock,
        (device_id, mqtt["username"], mqtt["password"]),
        (topic + "status", will(boot_id)),
        (topic + "commands/+", topic + "config"),
        application.hear,
        settings["keepalive_s"],
    )
    application.status = status = Status(
        client, topic + "status", boot_id, application.condition, application.settings.keep
    )
    application.wifi = wifi = Wifi(
        clock, hardware.station(device_id), wanted["wifi"]["ssid"], wanted["wifi"]["password"]
    )
    timekeeper = Timekeeper(clock, wifi, settings["ntp_host"], gateway.get("http_port", 8080))
    if gateway.get("tls") and not files.exists(hardware.root + "/ca.der"):
        raise ValueError("ca.der is missing: flash the board again")
    application.connection = connection = Connection(
        clock, wifi, timekeeper, client, gateway, hardware.resolve, hardware.root + "/ca.der", status.say
    )
    timekeeper.gateway_address = connection.address  # pyright: ignore[reportAttributeAccessIssue] - for None
    head = '{"device_id":"%s","firmware":"%s"' % (device_id, VERSION)
    telemetry = Telemetry(clock, application.outbox, client, topic + "telemetry", head, boot_id, application.is_asking)
    application.parts = [wifi, timekeeper, connection, telemetry]


def _drivers(application, clock, settings):
    """Return the sensors that are fitted."""
    hardware = application.hardware
    drivers = []
    if settings["ld2410"]["fitted"]:
        from drivers.ld2410 import Ld2410

        drivers.append(Ld2410(hardware.open_radar, settings["ld2410"], clock))
    if settings["pir"]["fitted"]:
        from drivers.pir import Pir

        drivers.append(Pir(hardware.motion(), settings["pir"], clock))
    if settings["mq134"]["fitted"]:
        from drivers.mq_sensor import MqSensor

        circuit = dict(hardware.gas_divider(), **settings["mq134"])
        r0_ohm = files.read_json(application.calibration_path(), {}).get("r0_ohm")
        drivers.append(MqSensor(hardware.gas(), circuit, clock, r0_ohm, application.keep_calibration))
    return drivers
