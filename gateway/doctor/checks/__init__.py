"""Every check of `neurogate doctor`, in the order of the report.

To add one, write a file with one function that takes the Evidence and returns findings, and add the function here.
"""

from gateway.doctor.checks.board_clocks import board_clocks
from gateway.doctor.checks.broker import broker
from gateway.doctor.checks.certificates import certificates
from gateway.doctor.checks.clock import clock
from gateway.doctor.checks.configuration import configuration
from gateway.doctor.checks.dead_letters import dead_letters
from gateway.doctor.checks.delivery import delivery
from gateway.doctor.checks.destinations import destinations
from gateway.doctor.checks.devices import devices
from gateway.doctor.checks.disk import disk
from gateway.doctor.checks.gateway import gateway
from gateway.doctor.checks.http import http
from gateway.doctor.checks.latency import latency
from gateway.doctor.checks.logins import logins
from gateway.doctor.checks.memory import memory
from gateway.doctor.checks.network import network
from gateway.doctor.checks.open_files import open_files
from gateway.doctor.checks.permissions import permissions
from gateway.doctor.checks.ports import ports
from gateway.doctor.checks.power import power
from gateway.doctor.checks.quarantine import quarantine
from gateway.doctor.checks.serial import serial
from gateway.doctor.checks.space import space
from gateway.doctor.evidence import Check

CHECKS: tuple[Check, ...] = (
    gateway,
    configuration,
    permissions,
    clock,
    power,
    disk,
    space,
    memory,
    open_files,
    ports,
    certificates,
    network,
    http,
    broker,
    latency,
    serial,
    devices,
    board_clocks,
    logins,
    quarantine,
    destinations,
    delivery,
    dead_letters,
)
