"""What a Home Assistant behind another broker is told of the devices whose readings go there.

The same as by the embedded broker (`gateway/model/home_assistant/`), with the gateway and the organisation in the
topics. All of it is retained: Home Assistant asks for a device's state when it has heard what the device is. One of
which nothing is forwarded any more becomes unavailable there by itself, `silent_after_s` after it was heard, or after
Home Assistant has come: then it may show an old state for so long.

Of a batch each device's state is told once, as it is behind its last reading. What is told is told again until the
broker has it. Nothing of this is on disk: after a start everything is new.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from cloud_sync.contract import Batch
from gateway.model.home_assistant import DeviceState, Topics, Whose, births, discovery

_DEVICES_AT_MOST = 5_000
"""Of one destination; of further ones it is not told. A hub may name as many as it likes."""


class Said(NamedTuple):
    """A message, to be retained."""

    topic: str
    payload: bytes


@dataclass(slots=True)
class _Told:
    whose: Whose
    topics: Topics
    state: DeviceState = field(default_factory=DeviceState)
    received_ms: int = 0
    """When something came from it last."""
    is_due: bool = False
    config_due: bool = True


class HomeAssistantMessages:
    """See the module's own words; for one destination."""

    def __init__(self, prefix: str, silent_after_s: int) -> None:
        """A device is unavailable when nothing has come from it for `silent_after_s`."""
        self._prefix = prefix
        self._silent_after_s = silent_after_s
        self._devices: dict[tuple[str, str], _Told] = {}

    @staticmethod
    def status_topic(gateway_id: str) -> str:
        """Return where it is told whether the gateway is there."""
        return Topics(behind=f"{gateway_id}/").status

    @property
    def births(self) -> tuple[str, ...]:
        """Where it says that it has come."""
        return births(self._prefix)

    def take(self, batch: Batch) -> None:
        """Take in readings, also more than once."""
        for reading in batch.readings:
            key = (reading.organization_id, reading.device_id)
            told = self._devices.get(key)
            if told is None:
                if len(self._devices) >= _DEVICES_AT_MOST:
                    continue
                topics = Topics(self._prefix, behind=f"{batch.gateway_id}/", within=f"{reading.organization_id}/")
                told = self._devices[key] = _Told(Whose(batch.gateway_id, *key), topics)
            known = reading.device_metadata
            name, area = (known.get(one) if isinstance(known.get(one), str) else "" for one in ("name", "location"))
            whose = Whose(batch.gateway_id, *key, name or "", area or "")
            changes = told.state.changes
            told.state.take(reading)
            told.config_due |= changes != told.state.changes or whose != told.whose
            told.whose = whose
            told.received_ms = max(told.received_ms, reading.received_at_ms)
            told.is_due = True

    def again(self) -> None:
        """Let everything be told again: somebody has come who knows nothing."""
        for told in self._devices.values():
            told.is_due = told.config_due = True

    def due(self, now_ms: int) -> Iterator[Said]:
        """Yield what is to be told now; a state before what makes use of it."""
        for told in self._devices.values():
            if told.is_due:
                state = told.state.message(is_online=now_ms - told.received_ms < self._silent_after_s * 1000)
                yield Said(told.topics.state(told.whose.device_id), state)
            if told.config_due:
                config = discovery(told.whose, told.state, told.topics, silent_after_s=self._silent_after_s)
                yield Said(told.topics.config(told.whose.object_id), config)

    def told(self) -> None:
        """Hear that the broker has all that was due."""
        for told in self._devices.values():
            told.is_due = told.config_due = False
