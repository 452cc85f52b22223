"""One task for each concern, and the only one that feeds the watchdog: while every part shows that it moves.

A part that fails is written into the crash log and started again, later each time; one that fails too often, or does
not move any more, costs a restart of the board.
"""

import asyncio
import gc

from micropython import const

_STILL_MS = const(30_000)
_LOOK_MS = const(500)
_MOST_FAILURES = const(8)
_CALM_MS = const(600_000)


class Part:
    """What the supervisor runs: `name`, `run()` that never ends, and `beat_ms`, which must move at least every 30 s."""

    name = "part"

    def __init__(self, clock):
        self._clock = clock
        self.beat_ms = clock.ticks_ms()

    def beat(self):
        """Show that this part moves."""
        self.beat_ms = self._clock.ticks_ms()

    async def pause(self, ms):
        """Do nothing for so long, but beat."""
        while ms > 0:
            self.beat()
            await asyncio.sleep_ms(min(ms, 1_000))
            ms -= 1_000
        self.beat()


class _Run:
    """How one part does."""

    task = again_ms = None
    failures = failed_ms = 0

    def __init__(self, part):
        self.part = part  # what most never need is said once for all, above


class Supervisor:
    """`parts` are run until `restart(reason)` is called by somebody; `watchdog` has `feed()`."""

    def __init__(self, clock, parts, watchdog, crash_log, restart):
        self._clock = clock
        self._runs = [_Run(part) for part in parts]
        self._watchdog = watchdog
        self._crash_log = crash_log
        self._restart = restart

    async def run(self):
        """Look after the parts for ever."""
        asyncio.get_event_loop().set_exception_handler(self._on_lost_exception)
        looks = 0
        while True:
            await self.look()
            looks += 1
            if looks % 10 == 0:
                self._clock.uptime_ms()  # the ticks wrap around
                gc.collect()
            await asyncio.sleep_ms(_LOOK_MS)

    async def look(self):
        """Look after all parts once."""
        alive = True
        for run in self._runs:
            if run.task is not None and run.task.done():
                await self._ended(run)
            alive = self._look_after(run) and alive
        if alive:
            self._watchdog.feed()

    def _look_after(self, run):
        """Start a part, start it again, or find that it stands still; returns whether the watchdog may be fed."""
        now = self._clock.ticks_ms()
        part = run.part
        if run.task is None:
            if run.again_ms is not None and self._clock.ticks_diff(now, run.again_ms) < 0:
                return True
            part.beat_ms = now
            run.task = asyncio.create_task(part.run())
        elif self._clock.ticks_diff(now, part.beat_ms) > _STILL_MS:
            self._crash_log.write("%s stands still" % part.name)
            self._restart("%s stands still" % part.name)
            return False
        return True

    async def _ended(self, run):
        try:
            await run.task
            raise RuntimeError("%s has ended" % run.part.name)
        except Exception as error:  # noqa: BLE001 - whatever it is, the board goes on
            now = self._clock.ticks_ms()
            if self._clock.ticks_diff(now, run.failed_ms) > _CALM_MS:
                run.failures = 0
            run.failures += 1
            run.failed_ms = now
            run.again_ms = self._clock.ticks_add(now, min(1_000 << run.failures - 1, 60_000))
            run.task = None
            self._crash_log.write(run.part.name, error)
            if run.failures > _MOST_FAILURES:
                self._restart("%s fails again and again" % run.part.name)

    def _on_lost_exception(self, _, context):
        """Note an exception of a task that nobody waits for; those of the parts come to `_ended`."""
        error = context.get("exception")
        if error is not None and not any(run.task is context["future"] for run in self._runs):
            self._crash_log.write("a task", error)
