# Interrupts and timers happen whenever asyncio waits, and whenever the program sleeps: looked at every 10 ms.
_sources = []
_EVERY_MS = 10
_looked = [real_time.ticks_ms()]


def watch(look):
    _sources.append(look)


def look():
    now = real_time.ticks_ms()
    if real_time.ticks_diff(now, _looked[0]) >= _EVERY_MS:
        _looked[0] = now
        for source in _sources:
            source(now)


def sleep_ms(ms):
    end = real_time.ticks_add(real_time.ticks_ms(), int(ms))
    while True:
        look()
        left = real_time.ticks_diff(end, real_time.ticks_ms())
        if left <= 0:
            return
        real_time.sleep_ms(min(left, _EVERY_MS))


_IOQueue = asyncio.core.IOQueue
_wait = _IOQueue.wait_io_event


def _wait_io_event(self, ms):
    if not _sources:
        return _wait(self, ms)
    look()
    if ms >= 0:
        return _wait(self, min(ms, _EVERY_MS))
    while not asyncio.core._task_queue.peek():  # for ever means: until a task may run
        _wait(self, _EVERY_MS)
        look()


_IOQueue.wait_io_event = _wait_io_event
