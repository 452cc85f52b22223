# Asks an NTP server once, as a board does. Prints what time it is, or why nobody knows.
import asyncio
import json
import sys

from app.time_sources import ask_ntp

STORY = json.load(sys.stdin)
try:
    print("EVENT " + json.dumps(["time", asyncio.run(ask_ntp("127.0.0.1", STORY["port"]))]))
except (OSError, ValueError) as error:
    print("EVENT " + json.dumps(["problem", str(error)]))
