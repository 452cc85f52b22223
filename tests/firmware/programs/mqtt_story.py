# What a board does with its MQTT client: it gets a story as JSON on standard input.
# Prints lines of JSON: what was acknowledged, heard, and why a connection ended. Ends when all of it has happened.
import asyncio
import json
import sys
import time

from app import connection as of_the_program
from app.clock import Clock
from app.connection import Connection
from app.mqtt import Message, MqttClient

STORY = json.load(sys.stdin)
of_the_program.backoff_ms = lambda failures: 50  # its length is tested elsewhere
SAID = []


def say(*event):
    SAID.append(list(event))
    print("EVENT " + json.dumps(event))


class Wifi:
    is_connected = True


class Timekeeper:
    async def ask(self):
        pass


class Loud(Connection):
    def _say(self, problem):
        super()._say(problem)
        say("problem", problem)


def resolve(name):
    if name == "nowhere.local":
        raise OSError("-2")
    return "127.0.0.1"


async def main():
    clock = Clock(time, lambda unix_s: None)
    login = STORY.get("login", ["board", "board", "secret"])
    client = MqttClient(
        clock,
        login,
        (STORY.get("topic", "") + "will", b"gone"),
        [STORY.get("topic", "") + name for name in STORY.get("filters", ["to-board/#"])],
        lambda topic, payload: say("heard", topic, None if payload is None else payload.decode()),
        STORY.get("keepalive_s", 30),
    )
    gateway = STORY["gateway"]
    connection = Loud(clock, Wifi(), Timekeeper(), client, gateway, resolve, STORY.get("ca"), lambda: say("connected"))
    asyncio.create_task(connection.run())
    for name, payload, qos, retain in STORY.get("messages", []):
        topic = STORY.get("topic", "") + name
        client.submit(Message(topic, payload.encode(), qos, retain, lambda it=payload: say("acknowledged", it)))
        await asyncio.sleep_ms(STORY.get("every_ms", 0))
    for _ in range(STORY.get("patience_ms", 60_000) // 20):
        if all(len([one for one in SAID if one[0] == kind]) >= count for kind, count in STORY["until"].items()):
            break
        await asyncio.sleep_ms(20)
    if STORY.get("linger_ms"):
        await asyncio.sleep_ms(STORY["linger_ms"])


asyncio.run(main())
