# The ESP32's `machine`, with inputs that are files: pinN (0 or 1), adcN (microvolts), uartN (TCP port of what is on the
# wire), unique_id. What a pin is set to stands in outN.
import io

_get, _put, _die = control["get"], control["put"], control["die"]
_cause, _set_clock = control["cause"], simulated_time["set_clock"]
_localtime, _mktime = simulated_time["gmtime"], simulated_time["mktime"]
_watch = events["watch"]
_CAUSES = {"power": 1, "hard": 2, "wdt": 3, "deepsleep": 4, "soft": 5}
PWRON_RESET, HARD_RESET, WDT_RESET, DEEPSLEEP_RESET, SOFT_RESET = 1, 2, 3, 4, 5


def reset_cause():
    return _CAUSES[_cause]


def reset():
    _die("hard")


def soft_reset():
    _die("soft")


def deepsleep(ms=0):
    _put("deepsleep", str(ms))
    _die("deepsleep")


def unique_id():
    return bytes.fromhex(_get("unique_id", "24:6f:28:aa:bb:cc").replace(":", ""))


def freq(hz=None):
    return 160_000_000 if hz is None else None


def idle():
    pass


def disable_irq():
    return 0


def enable_irq(state):
    pass


class Pin:
    IN, OUT, OPEN_DRAIN = 1, 3, 7
    PULL_DOWN, PULL_UP = 1, 2
    IRQ_RISING, IRQ_FALLING = 1, 2

    def __init__(self, id, mode=-1, pull=-1, *, value=None):
        self.id = id
        self._mode = mode
        self._idle = "1" if pull == self.PULL_UP else "0"
        if value is not None:
            self.value(value)

    def init(self, mode=-1, pull=-1, *, value=None):
        Pin.__init__(self, self.id, mode, pull, value=value)

    def value(self, new=None):
        if new is not None:
            _put("out%d" % self.id, "1" if new else "0")
        elif self._mode == self.OUT:
            return int(_get("out%d" % self.id, "0"))
        else:
            return int(_get("pin%d" % self.id, self._idle))

    __call__ = value

    def on(self):
        self.value(1)

    def off(self):
        self.value(0)

    def irq(self, handler=None, trigger=3, **kwargs):
        last = [self.value()]

        def look(now):
            level = self.value()
            if level != last[0]:
                last[0] = level
                if handler and trigger & (1 if level else 2):
                    handler(self)

        _watch(look)
        return self


class ADC:
    ATTN_0DB, ATTN_2_5DB, ATTN_6DB, ATTN_11DB = 0, 1, 2, 3

    def __init__(self, pin, atten=3):
        self.id = pin.id if isinstance(pin, Pin) else pin

    def atten(self, attenuation):
        pass

    def read_uv(self):
        return int(_get("adc%d" % self.id, "1200000"))

    def read_u16(self):
        return min(65535, self.read_uv() * 65535 // 3_300_000)


class WDT:
    # Whoever holds the power restarts the board when it is not fed in time; it cannot be stopped.
    def __init__(self, id=0, timeout=5000):
        self._timeout = timeout
        self.feed()

    def feed(self):
        _put("wdt", str(self._timeout))


class UART(io.IOBase):
    # The wire is a TCP connection to who listens on the port that the file uartN names. Its first line tells the speed,
    # so that a wrong one can be answered with garbage. While nobody listens the line is silent.
    INV_RX, INV_TX = 1, 2

    def __init__(self, id, baudrate=115200, **options):
        self._id = id
        self._baud = baudrate
        self._wire = self._poll = None
        self._tried = None
        self._connect()

    def init(self, baudrate=115200, **options):
        self.deinit()
        self._baud = baudrate
        self._connect()

    def deinit(self):
        if self._wire:
            self._wire.close()
        self._wire = self._tried = None

    def _connect(self):
        now = real_time.ticks_ms()
        if self._tried is not None and real_time.ticks_diff(now, self._tried) < 200:
            return
        self._tried = now
        port = _get("uart%d" % self._id, "")
        if not port:
            return
        wire = real_socket.socket()
        try:
            wire.connect(real_socket.getaddrinfo("127.0.0.1", int(port))[0][-1])
            wire.write(b"BAUD %d\n" % self._baud)
        except OSError:
            wire.close()
            return
        wire.setblocking(False)
        self._poll = real_select.poll()
        self._poll.register(wire, real_select.POLLIN)
        self._wire = wire

    def any(self):
        if not self._wire:
            self._connect()
        return 1 if self._wire and self._poll.poll(0) else 0

    def read(self, n=-1):
        if not self.any():
            return None
        try:
            data = self._wire.recv(256 if n < 0 else n)
        except OSError:
            data = b""
        if not data:  # nobody is at the other end any more
            self._wire.close()
            self._wire = None
            return None
        return data

    def readinto(self, buffer, n=None):
        data = self.read(n or len(buffer))
        if data is None:
            return None
        buffer[: len(data)] = data
        return len(data)

    def readline(self):
        return self.read()

    def write(self, data):
        if self._wire:
            try:
                return self._wire.write(data)
            except OSError:
                pass
        return len(data)

    def ioctl(self, request, argument):
        if request == 3:  # poll; every wire takes what is written
            return (argument & 4) | (argument & 1 if self.any() else 0)
        return -1  # also to "which file descriptor": 0 would be the console


class RTC:
    def datetime(self, fields=None):
        if fields is not None:
            year, month, day, _, hour, minute, second, _ = fields
            _set_clock(_mktime((year, month, day, hour, minute, second)))
            return None
        now = _localtime()
        return (now[0], now[1], now[2], now[6], now[3], now[4], now[5], 0)


class Timer:
    ONE_SHOT, PERIODIC = 0, 1

    def __init__(self, id=-1, **options):
        self._due = None
        _watch(self._look)
        if options:
            self.init(**options)

    def init(self, *, mode=1, period=-1, freq=0, callback=None):
        self._every = int(1000 / freq) if freq else period
        self._repeats, self._callback = mode == self.PERIODIC, callback
        self._due = real_time.ticks_add(real_time.ticks_ms(), self._every)

    def deinit(self):
        self._due = None

    def _look(self, now):
        if self._due is not None and real_time.ticks_diff(now, self._due) >= 0:
            self._due = real_time.ticks_add(self._due, self._every) if self._repeats else None
            self._callback(self)
