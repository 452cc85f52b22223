"""What Home Assistant is told over MQTT: pure functions from readings to messages, for any broker.

Source: https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery, "Device discovery payload", and what reads it,
`homeassistant/components/mqtt/` of home-assistant/core (2024.11 or newer knows device-based discovery).
"""

from gateway.model.home_assistant.discovery import Whose, discovery
from gateway.model.home_assistant.entities import Entity
from gateway.model.home_assistant.state import DeviceState
from gateway.model.home_assistant.topics import BIRTH, OFFLINE, ONLINE, Topics, births

__all__ = ["BIRTH", "OFFLINE", "ONLINE", "DeviceState", "Entity", "Topics", "Whose", "births", "discovery"]
