"""The configuration: typed settings, where each value came from, and errors that say what to write."""

from gateway.config.load import LoadedConfig, load
from gateway.config.settings import (
    ClockSettings,
    GatewaySettings,
    HttpSettings,
    IngestSettings,
    IntegrationTable,
    LogSettings,
    MqttSettings,
    SerialTable,
    Settings,
    StorageSettings,
    TlsSettings,
)

__all__ = [
    "ClockSettings",
    "GatewaySettings",
    "HttpSettings",
    "IngestSettings",
    "IntegrationTable",
    "LoadedConfig",
    "LogSettings",
    "MqttSettings",
    "SerialTable",
    "Settings",
    "StorageSettings",
    "TlsSettings",
    "load",
]
