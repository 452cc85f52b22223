"""What Home Assistant is told over MQTT: pure functions from readings to messages, for any broker.

Source: https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery, "Device discovery payload", and what reads it,
`homeassistant/components/mqtt/` of home-assistant/core (2025.1 and newer; read in 2026.2.3).
"""

from gateway.model.home_assistant.discovery import Whose, discovery
from gateway.model.home_assistant.entities import Entity
from gateway.model.home_assistant.state import DeviceState
from gateway.model.home_assistant.topics import BIRTH, OFFLINE, ONLINE, Topics, births

__all__ = ["BIRTH", "OFFLINE", "ONLINE", "DeviceState", "Entity", "Topics", "Whose", "births", "discovery"]
