"""Commands from the gateway, one after the other: each is answered with `executing`, then `successful` or `failed`.

A command that comes too late is not carried out, and one that comes twice only once: its last answer is said again.
"""

import asyncio
import json

from micropython import const

from app.mqtt import Message
from app.supervisor import Part

_MOST_WAITING = const(4)
_REMEMBERED = const(16)
_LIMIT_MS = const(120_000)


class Commands(Part):
    """`methods`: name → async function of the parameters; what it raises as ValueError is what was wrong with them.

    `prefix` is the topic below which a command's id follows.
    """

    name = "commands"

    def __init__(self, clock, client, prefix, methods):
        super().__init__(clock)
        self._client = client
        self._prefix = prefix
        self._methods = methods
        self._waiting = []
        self._answers = []

    def hear(self, command_id, payload):
        """Take in what came on the topic of one command."""
        if not payload and payload is not None:
            return  # a retained one was deleted
        for one_id, answer in self._answers:
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
            try:
                result = await self._carry_out(payload)
                state = "successful"
            except (ValueError, TypeError, KeyError) as error:
                result = str(error)
            except Exception as error:  # noqa: BLE001 - a driver's trouble is the answer, not the end
                result = "%s: %s" % (type(error).__name__, error)
            self._answer(command_id, state, result)

    async def _carry_out(self, payload):
        if payload is None:
            raise ValueError("the command is too long")
        try:
            command = json.loads(payload)
        except ValueError:
            raise ValueError("the command is no JSON") from None
        if not isinstance(command, dict) or not isinstance(command.get("params") or {}, dict):
            raise ValueError("a command is an object with method and params")
        name = command.get("method")
        method = self._methods.get(name) if isinstance(name, str) else None
        if method is None:
            raise ValueError("no such method; there are %s" % ", ".join(sorted(self._methods)))
        self._check_deadline(command.get("deadline"))
        task = asyncio.create_task(method(command.get("params") or {}))
        until = self._clock.ticks_add(self._clock.ticks_ms(), _LIMIT_MS)
        while not task.done():
            self.beat()
            if self._clock.ticks_diff(until, self._clock.ticks_ms()) < 0:
                task.cancel()
                raise ValueError("it took longer than %d s" % (_LIMIT_MS // 1000))
            await asyncio.sleep_ms(20)
        return await task

    def _check_deadline(self, deadline):
        if deadline is None:
            return
        if not isinstance(deadline, (int, float)):
            raise ValueError("deadline must be unix seconds")
        now_ms = self._clock.unix_ms()
        if now_ms is None:
            raise ValueError("the board does not know the time, so perhaps it is too late")
        if now_ms // 1000 > int(deadline):
            raise ValueError("too late")

    def _answer(self, command_id, state, result=None):
        answer = {"state": state} if result is None else {"state": state, "result": result}
        self._answers = [one for one in self._answers if one[0] != command_id][1 - _REMEMBERED :]
        answer = json.dumps(answer).encode()
        self._answers.append((command_id, answer))
        self._say(command_id, answer)

    def _say(self, command_id, answer):
        self._client.submit(Message("%s%s/ack" % (self._prefix, command_id), answer))
