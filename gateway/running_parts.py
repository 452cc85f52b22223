"""What a running gateway consists of, once all of it is built."""

import contextlib
from dataclasses import dataclass

from cloud_sync.callbacks import Callbacks
from gateway.access import Access
from gateway.broker.door import Door
from gateway.home_assistant import HomeAssistant
from gateway.http_listeners import HttpListeners
from gateway.integrations import RunningIntegrations
from gateway.live_feed import LiveFeed
from gateway.running_site import RunningSite
from gateway.sources.serial_sources import SerialSource
from gateway.storage.log import Log
from gateway.storage.mqtt_messages import MqttMessages
from gateway.storage.repair.run_marker import RunMarker
from gateway.storage.state import State
from gateway.tls.site_tls import SiteTls


@dataclass(slots=True)
class Parts:
    """See the module's own words."""

    state: State
    log: Log
    access: Access
    door: Door
    http: HttpListeners
    integrations: RunningIntegrations
    messages: MqttMessages
    callbacks: Callbacks
    feed: LiveFeed
    serial: dict[str, SerialSource]
    site: RunningSite
    home_assistant: HomeAssistant
    tls: SiteTls | None
    run_marker: RunMarker
    listeners: contextlib.AsyncExitStack
    """Closing it closes every port and connection."""
