# MicroPython runs the test functions of one file: micropython run_under_micropython.py SLOT FILE
# Prints a line of JSON for each: its name, and what went wrong. It has no pytest, and needs none.
import asyncio
import io
import json
import sys

sys.path.insert(0, sys.argv[1])
folder, _, name = sys.argv[2].rpartition("/")
sys.path.insert(0, folder)
__import__("time_by_hand").leap()
module = __import__(name.rpartition(".")[0])
for name in sorted(dir(module)):
    if not name.startswith("test_"):
        continue
    failure = None
    try:
        result = getattr(module, name)()
        if hasattr(result, "send"):
            asyncio.run(result)
    except BaseException as error:
        text = io.StringIO()
        sys.print_exception(error, text)
        failure = text.getvalue()
    print("RESULT " + json.dumps([name, failure]))
