# What each module of the program takes of the heap, in the order in which a board loads them; of those that are in
# memory only now and then, what they take meanwhile.
import gc
import json
import sys

STORY = json.load(sys.stdin)


def in_use():
    gc.collect()
    return gc.mem_alloc()


def load(kind, name):
    before = in_use()
    __import__(name)
    print("EVENT " + json.dumps(["module", kind, name, in_use() - before]))


load("stays", "asyncio")
load("stays", "asyncio.stream")
for name in STORY["stay"]:
    load("stays", name)
from app.on_demand import forget  # noqa: E402 - it is measured

for name in STORY["go"]:
    load("goes", name)
    forget(name)
