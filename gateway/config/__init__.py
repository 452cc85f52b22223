"""The configuration: typed settings, where each value came from, and errors that say what to write."""

from gateway.config.listeners import HttpSettings, MqttSettings, TlsSettings
from gateway.config.load import LoadedConfig, load
from gateway.config.section import Section
from gateway.config.serial import SerialTable
from gateway.config.settings import (
    ClockSettings,
    EgressSettings,
    GatewaySettings,
    HomeAssistantSettings,
    IngestSettings,
    IntegrationTable,
    LogSettings,
    NotificationSettings,
    Settings,
    StorageSettings,
)

__all__ = [
    "ClockSettings",
    "EgressSettings",
    "GatewaySettings",
    "HomeAssistantSettings",
    "HttpSettings",
    "IngestSettings",
    "IntegrationTable",
    "LoadedConfig",
    "LogSettings",
    "MqttSettings",
    "NotificationSettings",
    "Section",
    "SerialTable",
    "Settings",
    "StorageSettings",
    "TlsSettings",
    "load",
]
