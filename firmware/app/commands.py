"""Commands from the gateway, one after the other: each is answered with `executing`, then `successful` or `failed`.

A command that comes too late is not carried out, and one that comes twice only once: its last answer is said again,
without its result if that was long and another one came since.
"""

import asyncio
import gc
import json

from micropython import const

from app.mqtt import Message
from app.on_demand import forget
from app.supervisor import Part
from app.within import within

_MOST_WAITING = const(4)
_REMEMBERED = const(8)
_LONG_BYTES = const(200)
_LIMIT_MS = const(120_000)


class Commands(Part):
    """`targets` have `methods`, names, and an async `carry_out(method, params)`; its ValueError says what was wrong.

    What it returns is the result, or a tuple of bytes: the result's JSON in pieces.

    `prefix` is the topic below which a command's id follows.
    """

    name = "commands"

    def __init__(self, clock, client, prefix, targets):
        super().__init__(clock)
        self._client = client
        self._prefix = prefix
        self._targets = targets
        self._waiting = []
        self._answers = []

    def hear(self, command_id, payload):
        """Take in what came on the topic of one command."""
        if not payload and payload is not None:
            return  # a retained one was deleted
        for one_id, answer, _ in self._answers:
            if one_id == command_id:
                self._say(command_id, answer)
                return
        if len(self._waiting) >= _MOST_WAITING:
            self._answer(command_id, "failed", "too many commands at once")
            return
        self._answer(command_id, "executing")
        self._waiting.append((command_id, payload))

    async def run(self):
        """Carry out for ever."""
        while True:
            self.beat()
            if not self._waiting:
                await asyncio.sleep_ms(50)
                continue
            command_id, payload = self._waiting.pop(0)
            state, result = "failed", None
            gc.collect()  # what is loaded for it shall lie together
            try:
                result = await self._carry_out(payload)
                state = "successful"
            except (ValueError, TypeError, KeyError) as error:
                result = str(error)
            except Exception as error:  # noqa: BLE001 - a driver's trouble is the answer, not the end
                result = "%s: %s" % (type(error).__name__, error)
            self._answer(command_id, state, result)

    async def _carry_out(self, payload):
        method, params, target = self._understood(payload)
        try:
            return await within(_LIMIT_MS, target.carry_out(method, params), self.beat)
        except asyncio.TimeoutError:
            raise ValueError("it took longer than %d s" % (_LIMIT_MS // 1000)) from None

    def _understood(self, payload):
        from app.command_check import understood

        forget("app.command_check")
        return understood(payload, self._targets, self._clock)

    def _answer(self, command_id, state, result=None):
        known = [one for one in self._answers if one[0] != command_id][1 - _REMEMBERED :]
        for one in known:
            if isinstance(one[1], tuple) or len(one[1]) > _LONG_BYTES:  # eight of these would be too much
                one[1] = json.dumps({"state": one[2]}).encode()
        if isinstance(result, tuple):
            answer = (('{"state": "%s", "result": ' % state).encode(),) + result + (b"}",)
        else:
            answer = {"state": state} if result is None else {"state": state, "result": result}
            answer = json.dumps(answer).encode()
        self._answers = known + [[command_id, answer, state]]
        self._say(command_id, answer)

    def _say(self, command_id, answer):
        self._client.submit(Message("%s%s/ack" % (self._prefix, command_id), answer))
