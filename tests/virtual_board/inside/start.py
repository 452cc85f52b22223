# What a virtual board does before its own boot.py: the flash becomes the only file system, the simulated modules take
# the places of the real ones, and nothing that leads to the machine's files is left within reach. If anything of that
# fails, the board does not start.
import asyncio
import builtins
import gc
import os
import select
import socket
import sys
import time
import vfs


def _set_up():
    inside = vfs.VfsPosix(os.getenv("BOARD_SIMULATED"))
    modules = {}

    class Module:
        pass

    def load(name, extra):
        scope = {"__name__": name}
        scope.update(extra)
        file = inside.open("/" + name + ".py", "r")
        exec(compile(file.read(), "<simulated " + name + ">", "exec"), scope)
        file.close()
        module = Module()
        module.__name__ = name
        for key, value in scope.items():
            if key[0] != "_" and key not in extra:
                setattr(module, key, value)
        modules[name] = module
        return scope

    def without(real, names, extra=()):
        module = Module()
        for key in dir(real):
            if key not in names and key[:2] != "__":
                setattr(module, key, getattr(real, key))
        module.__name__ = real.__name__
        for key, value in extra:
            setattr(module, key, value)
        modules[real.__name__] = module

    flash = load("flash", {})["mounted"](os.getenv("BOARD_FLASH"), int(os.getenv("BOARD_FLASH_KB")))
    control = load(
        "control", {"real_os": os, "files": vfs.VfsPosix(os.getenv("BOARD_CTL")), "cause": os.getenv("BOARD_CAUSE")}
    )
    shared = {"control": control, "real_time": time, "asyncio": asyncio, "real_select": select, "real_socket": socket}
    shared["events"] = load("events", shared)
    for name in ("time", "socket", "machine", "network", "esp32"):
        shared["simulated_" + name] = load(name, shared)
    for name in ("control", "events", "flash"):
        del modules[name]
    runs_main = os.getenv("BOARD_RUNS_MAIN") == "1"

    def uname():
        return (
            "esp32",
            "esp32",
            "1.29.0",
            "v1.29.0 on 2026-07-05",
            control["get"]("machine", "Generic ESP32 module with ESP32"),
        )

    posix = ("VfsPosix",)
    without(vfs, posix)
    without(os, posix + ("system", "getenv", "putenv", "unsetenv"), [("uname", uname)])
    without(sys, ("platform",), [("platform", control["get"]("platform", "esp32"))])
    original = builtins.__import__

    def simulated_import(name, *rest):  # `uos` would be the real `os`
        if name[:1] == "u" and name[1:] in modules:
            name = name[1:]
        return original(name, *rest)

    builtins.__import__ = simulated_import
    vfs.umount("/")
    vfs.mount(flash, "/")
    os.chdir("/")
    sys.path[:] = ["", ".frozen", "/lib"]
    for name, module in modules.items():
        sys.modules[name] = module
    control["put"]("set_up", "")  # until then nobody can talk to this process
    return runs_main


def _run(name):
    import sys  # the simulated one

    try:
        with open(name) as file:
            source = file.read()
    except OSError:
        return
    try:
        exec(compile(source, name, "exec"), globals())
    except KeyboardInterrupt:
        print("KeyboardInterrupt")
    except SystemExit:
        pass
    except Exception as error:
        sys.print_exception(error)


try:
    _runs_main = _set_up()
except BaseException as error:
    sys.print_exception(error)
    sys.exit(99)
gc.collect()
del _set_up, asyncio, builtins, gc, os, select, socket, sys, time, vfs  # the real ones are out of reach in the REPL too
_run("boot.py")
if _runs_main:
    _run("main.py")
