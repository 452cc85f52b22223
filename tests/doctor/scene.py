"""What checks are shown: a configuration, a machine that a test has made, and what a gateway might have said."""

from pathlib import Path
from typing import Any

from gateway.clock import Clock, ManualClock
from gateway.config import LoadedConfig, Settings, load
from gateway.doctor.evidence import Evidence, Machine
from gateway.model.finding import Finding
from gateway.model.status import BufferStatus, DestinationStatus, GatewayStatus
from gateway.model.vitals import FailingAddress, LoginActivity, Vitals
from gateway.operations.troubles import DeviceHealth, Troubles

NOW_MS = 1_795_000_000_000
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


def evidence(
    data_dir: Path, *, clock: Clock | None = None, machine: Machine | None = None, tables: Any = None, **known: Any
) -> Evidence:
    """Evidence of a gateway whose settings are `tables`."""
    settings = Settings.model_validate({"gateway": {"data_dir": data_dir}} | (tables or {}))
    loaded = LoadedConfig(settings, {}, None)
    return Evidence(loaded, clock or ManualClock(NOW_MS), machine or Machine(), **known)


def of_file(path: Path, text: str, environ: dict[str, str] | None = None, **known: Any) -> Evidence:
    """Evidence of a gateway with a configuration file."""
    path.write_text(text)
    return Evidence(load(path, environ or {}), ManualClock(NOW_MS), **known)


def vitals(**fields: Any) -> Vitals:
    usual: dict[str, Any] = {
        "pid": 1,
        "clock_moved_ms": 0,
        "open_files": 30,
        "open_files_at_most": 20_000,
        "memory_bytes": 80_000_000,
        "logins": [],
        "failing_addresses": [],
        "metrics": "",
    }
    return Vitals(**usual | fields)


def status(**fields: Any) -> GatewayStatus:
    usual: dict[str, Any] = {
        "gateway_id": "site-1",
        "version": "0.1.0",
        "uptime_seconds": 60.0,
        "mqtt_port": 1883,
        "http_port": 8080,
        "problems": [],
        "connections": 0,
        "ingested": 0,
        "duplicates": 0,
        "quarantined": 0,
        "buffer": BufferStatus(0, 0, 0, 0, 0),
    }
    return GatewayStatus(**usual | fields)


def destination(**fields: Any) -> DestinationStatus:
    usual: dict[str, Any] = {
        "name": "api",
        "type": "webhook",
        "state": "idle",
        "position": 0,
        "undelivered": 0,
        "oldest_seconds": 0.0,
        "delivered": 5,
        "failures": 0,
    }
    return DestinationStatus(**usual | fields)


def device(device_id: str = "kitchen", **fields: Any) -> DeviceHealth:
    usual: dict[str, Any] = {
        "organization_id": "default",
        "device_id": device_id,
        "status": "active",
        "last_heard_ms": NOW_MS,
        "usual_gap_ms": 10_000,
        "last_login_ms": NOW_MS,
        "connections": 1,
    }
    return DeviceHealth(**usual | fields)


def troubles(*devices: DeviceHealth, **fields: Any) -> Troubles:
    usual: dict[str, Any] = {"now_ms": NOW_MS, "devices": list(devices), "quarantine": [], "refused": []}
    return Troubles(**usual | fields)


def login(username: str, logins: int, refused: int = 0) -> LoginActivity:
    return LoginActivity(username, logins, refused)


def failing(address: str, failures: int) -> FailingAddress:
    return FailingAddress(address, failures)


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level for finding in findings]


def only(findings: list[Finding]) -> Finding:
    """The one finding, which says what to do next unless all is well."""
    assert len(findings) == 1, findings
    assert (findings[0].level == "ok") == (findings[0].hint == "")
    return findings[0]
