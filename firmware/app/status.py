"""The retained status of the board: `online` with what it is and what is wrong with it; its will says `offline`."""

import json

from app import VERSION
from app.mqtt import Message


class Status:
    """`more()` returns fields that are said besides; `said()` is called when the gateway has a status of this start."""

    def __init__(self, client, topic, boot_id, more, said):
        self._client = client
        self._topic = topic
        self._boot_id = boot_id
        self._more = more
        self._said = said
        self._waits = False
        self._last = None

    def say(self):
        """Say it as it is when it is sent; one that still waits is enough."""
        if not self._waits:
            self._waits = True
            self._client.submit(Message(self._topic, self._payload, retain=True, acknowledged=self._acknowledged))

    def say_news(self):
        """Say it if it is not what was said last."""
        if self._last is not None and hash(self._text()) != self._last:
            self.say()

    def _text(self):
        return json.dumps(dict({"status": "online", "firmware": VERSION, "boot_id": self._boot_id}, **self._more()))

    def _payload(self):
        text = self._text()
        self._last = hash(text)  # the text itself would wait in memory
        return text.encode()

    def _acknowledged(self):
        self._waits = False
        self._said()


def will(boot_id):
    """Return what the broker says when the board is gone."""
    return json.dumps({"status": "offline", "firmware": VERSION, "boot_id": boot_id}).encode()
