"""An LD2410 as its maker documents it, in bytes: what it hears and what it says. Plain Python, for any interpreter."""

HEADER, TAIL = b"\xfd\xfc\xfb\xfa", b"\x04\x03\x02\x01"
BAUDS = (9600, 19200, 38400, 57600, 115200, 230400, 256000, 460800)


def u16(number):
    return bytes((number & 0xFF, number >> 8))


class SimulatedRadar:
    """`hear` takes bytes and returns the acknowledgements; `report` returns the next report, nothing within a
    configuration. `deaf_for` commands are not answered; `refuses` are, with a status."""

    def __init__(self, baud=256000):
        self.baud = baud
        self.configuring = self.engineering = False
        self.state, self.moving_cm, self.moving_energy = 0, 0, 0
        self.stationary_cm, self.stationary_energy, self.distance_cm = 0, 0, 0
        self.gates, self.nobody_s = [8, 8], 5
        self.moving, self.stationary = [50, 50, 40, 30, 20, 15, 15, 15, 15], [0, 0, 40, 40, 30, 30, 20, 20, 20]
        self.restarts = self.deaf_for = 0
        self.refuses = ()
        self.heard = []
        self._rest = b""

    def hear(self, data):
        self._rest += data
        said = b""
        while True:
            start = self._rest.find(HEADER)
            if start < 0 or len(self._rest) < start + 6:
                return said
            length = self._rest[start + 4] | self._rest[start + 5] << 8
            end = start + 6 + length
            if len(self._rest) < end + 4:
                return said
            frame, self._rest = self._rest[start + 6 : end], self._rest[end + 4 :]
            said += self._command(frame[0] | frame[1] << 8, frame[2:])

    def _command(self, command, value):  # noqa: C901, PLR0912 - a table of commands
        self.heard.append(command)
        if self.deaf_for:
            self.deaf_for -= 1
            return b""
        if command != 0xFF and not self.configuring:
            return b""
        if command in self.refuses:
            return self._ack(command, 1)
        answer = b""
        if command == 0xFF:
            self.configuring, answer = True, b"\x01\x00\x40\x00"
        elif command == 0xFE:
            self.configuring = False
        elif command == 0xA0:
            answer = bytes.fromhex("0001070116150922")
        elif command == 0x61:
            answer = bytes([0xAA, 8] + self.gates + self.moving + self.stationary) + u16(self.nobody_s)
        elif command in (0x62, 0x63):
            self.engineering = command == 0x62
        elif command == 0x60:
            moving, stationary, self.nobody_s = _values(value)
            self.gates = [moving, stationary]
        elif command == 0x64:
            gate, moving, stationary = _values(value)
            for one in range(9) if gate == 0xFFFF else (gate,):
                self.moving[one], self.stationary[one] = moving, stationary
        elif command == 0xA1:
            self.baud = BAUDS[value[0] - 1]
        elif command == 0xA3:
            self.restarts += 1
            self.configuring = self.engineering = False
        else:
            return self._ack(command, 1)
        return self._ack(command, 0, answer)

    def _ack(self, command, status, value=b""):
        return HEADER + u16(4 + len(value)) + u16(command | 0x0100) + u16(status) + value + TAIL

    def report(self):
        if self.configuring:
            return b""
        data = bytes([self.state]) + u16(self.moving_cm) + bytes([self.moving_energy])
        data += u16(self.stationary_cm) + bytes([self.stationary_energy]) + u16(self.distance_cm)
        if self.engineering:
            data += bytes([8, 8]) + bytes(range(1, 10)) + bytes(range(11, 20)) + b"\x50\x01"
        data = bytes([1 if self.engineering else 2, 0xAA]) + data + b"\x55\x00"
        return b"\xf4\xf3\xf2\xf1" + u16(len(data)) + data + b"\xf8\xf7\xf6\xf5"


def _values(value):
    return [int.from_bytes(value[at + 2 : at + 6], "little") for at in range(0, len(value), 6)]
