"""From the outbox to the gateway: each reading with the time that is known of it when it is sent."""

import asyncio

from app.mqtt import Message
from app.supervisor import Part


def times(record, boot_id, clock):
    """Return the fields that say when a reading was measured.

    The time itself, when the clock was right then or has become so since; else its age. Of an earlier start nobody
    knows how long the board was without power: it is at least as old as this start, and is said to be uncertain.
    """
    if record.unix_ms is not None:
        return '"timestamp":%d' % record.unix_ms
    if record.boot_id != boot_id:
        return '"age_ms":%d,"time_uncertain":true' % clock.uptime_ms()
    if clock.is_set:
        return '"timestamp":%d' % clock.unix_ms(record.uptime_ms)
    return '"age_ms":%d' % (clock.uptime_ms() - record.uptime_ms)


class Telemetry(Part):
    """Hands the outbox's readings to the MQTT client; `head` is the JSON that begins each, `{"device_id":…`.

    `is_held()` says whether they wait at the moment.
    """

    name = "telemetry"

    def __init__(self, clock, outbox, client, topic, head, boot_id, is_held):
        super().__init__(clock)
        self._outbox = outbox
        self._client = client
        self._topic = topic
        self._head = head
        self._boot_id = boot_id
        self._is_held = is_held
        self.acknowledged = 0
        """How many have arrived since the start."""

    async def run(self):
        """Send for ever."""
        while True:
            self.beat()
            if not self._client.is_connected or self._is_held():
                # what nobody takes now is safer in the outbox, which goes to the flash
                await asyncio.sleep_ms(200)
                continue
            record = await self._outbox.take(1_000)
            if record is not None:
                self._submit(record)

    def _submit(self, record):
        def payload():
            text = '%s,"boot_id":"%s","seq":%d,%s,' % (
                self._head,
                record.boot_id,
                record.seq,
                times(record, self._boot_id, self._clock),
            )
            return text.encode(), memoryview(record.body)[1:]

        def acknowledged():
            self.acknowledged += 1
            self._outbox.acknowledge(record)

        self._client.submit(Message(self._topic, payload, acknowledged=acknowledged))
