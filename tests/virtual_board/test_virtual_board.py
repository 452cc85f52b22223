"""The virtual board does what the ESP32 port does, as far as the firmware and flashing rely on it."""

import hashlib
import os
from pathlib import Path

from tests.virtual_board.conftest import mpremote, said
from tests.virtual_board.virtual_board import VirtualBoard

CAUSE = "import machine; print('cause', machine.reset_cause())"


def put_main(board: VirtualBoard, tmp_path: Path, code: str) -> None:
    file = tmp_path / "main.py"
    file.write_text(code)
    done = mpremote(board, "fs", "cp", str(file), ":main.py")
    assert done.returncode == 0, done.stderr


def test_mpremote_copies_a_tree_and_its_hashes_are_right(board: VirtualBoard, tmp_path: Path) -> None:
    big = os.urandom(20_000)
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "big.bin").write_bytes(big)
    assert mpremote(board, "fs", "cp", "-r", f"{tmp_path}/tree", ":").returncode == 0
    assert hashlib.sha256(big).hexdigest() in mpremote(board, "fs", "sha256sum", ":tree/deep/big.bin").stdout
    assert mpremote(board, "fs", "rm", "-r", ":tree").returncode == 0


def test_its_flash_has_a_size_and_an_end(board: VirtualBoard, tmp_path: Path) -> None:
    assert "2097152" in mpremote(board, "df").stdout
    code = "f = open('/big', 'wb')\nwhile True: f.write(bytes(8192))"
    with VirtualBoard(tmp_path, flash_kb=256) as small:
        done = mpremote(small, "exec", code)
        assert "OSError: 28" in done.stdout + done.stderr


def test_every_kind_of_start_says_its_cause(board: VirtualBoard, tmp_path: Path) -> None:
    put_main(board, tmp_path, CAUSE)
    at = len(board.console())
    board.power_cycle()
    board.wait_for("cause 1", after=at)
    mpremote(board, "exec", "--no-follow", "import machine; machine.reset()")
    board.wait_for("cause 2", after=at)
    mpremote(board, "exec", "--no-follow", "import machine; machine.deepsleep(10)")
    board.wait_for("cause 4", after=at)
    mpremote(board, "soft-reset")
    assert "soft reboot" in board.console()[at:]


def test_a_watchdog_that_is_not_fed_bites(board: VirtualBoard, tmp_path: Path) -> None:
    put_main(
        board,
        tmp_path,
        "import machine, time\nprint('cause', machine.reset_cause())\n"
        "if machine.reset_cause() != 3:\n dog = machine.WDT(timeout=2_000)\n"
        " for _ in range(5):\n  time.sleep_ms(500)\n  dog.feed()\n print('fed')\n while True: pass",
    )
    at = len(board.console())
    board.power_cycle()
    board.wait_for("fed", after=at)
    board.wait_for("cause 3", after=at)


def test_a_power_cut_loses_what_was_not_on_flash(board: VirtualBoard, tmp_path: Path) -> None:
    put_main(
        board,
        tmp_path,
        "with open('/kept', 'w') as f: f.write('x')\nopen('/lost', 'w').write('x')\nprint('written')\nwhile True: pass",
    )
    at = len(board.console())
    board.power_cycle()
    board.wait_for("written", after=at)
    board.power(on=False)
    board.power(on=True)
    assert said(board, "import os; print(os.stat('/kept')[6], os.stat('/lost')[6])") == "1 0"
    said(board, "import os; os.remove('/main.py')")


def test_a_program_that_neither_speaks_nor_listens_does_not_hold_up_the_power(
    board: VirtualBoard, tmp_path: Path
) -> None:
    put_main(
        board,
        tmp_path,
        "import os\nif 'talked' in os.listdir('/'):\n while True: pass\n"
        "open('/talked', 'w').close()\nwhile True: print('talks and talks')",
    )
    at = len(board.console())
    board.power_cycle()
    board.wait_for("talks and talks", after=at)
    board.power_cycle()  # it begins to be silent
    with open(board.port, "wb", buffering=0) as line:  # noqa: PTH123 - a terminal
        line.write(b"x" * 4_000)
        line.write(b"x" * 4_000)
    board.power_cycle()
    said(board, "import os; os.remove('/main.py')")


def test_its_clock_begins_in_2000_and_outlives_a_reset(board: VirtualBoard) -> None:
    at = len(board.console())
    board.power_cycle()
    board.wait_for_prompt(after=at)
    assert said(board, "import time; print(time.gmtime(0)[0], time.gmtime()[0], type(time.time()))") == (
        "2000 2000 <class 'int'>"
    )
    said(board, "import machine; machine.RTC().datetime((2026, 11, 21, 5, 12, 30, 0, 0))")
    at = len(board.console())
    mpremote(board, "exec", "--no-follow", "import machine; machine.reset()")
    board.wait_for_prompt(after=at)
    now = said(board, "import time; t = time.gmtime(); print(t[:5], time.mktime(t) - time.time() in (-1, 0))")
    assert now == "(2026, 11, 21, 12, 30) True"


def test_inputs_interrupts_and_timers(board: VirtualBoard) -> None:
    board.motion(seen=False)
    board.put("adc34", "812000")
    code = """
import asyncio, machine
seen = asyncio.ThreadSafeFlag()
pin = machine.Pin(27, machine.Pin.IN)
pin.irq(lambda p: seen.set(), machine.Pin.IRQ_RISING)
ticks = []
machine.Timer(0, period=20, callback=ticks.append)
async def main():
    while len(ticks) < 2: await asyncio.sleep_ms(5)
    print('ready')
    await asyncio.wait_for(seen.wait(), 20)
    print(pin.value(), machine.ADC(34).read_uv())
asyncio.run(main())
machine.Pin(2, machine.Pin.OUT).on()
"""
    at = len(board.console())
    assert mpremote(board, "exec", "--no-follow", code).returncode == 0
    board.wait_for("ready", after=at)
    board.motion(seen=True)
    board.wait_for("1 812000", after=at)
    board.wait_for(">", after=at)
    assert board.get("out2") == "1"


UART = """
import asyncio, machine
async def main():
    reader = asyncio.StreamReader(machine.UART(2, baudrate=%d, rx=16, tx=17, rxbuf=1024, timeout=0))
    heard = b''
    try:
        while len(heard) < 46: heard += await asyncio.wait_for_ms(reader.read(64), 1000)
    except asyncio.TimeoutError: heard = b'silence'
    print(heard.hex())
asyncio.run(main())
"""


def test_a_radar_is_heard_at_its_own_speed_while_it_is_plugged_in(board: VirtualBoard) -> None:
    board.radar.see(150)
    assert "f4f3f2f1" in said(board, UART % 256_000)
    assert "f4f3f2f1" not in said(board, UART % 9_600)
    board.radar.unplug()
    assert said(board, UART % 256_000) == b"silence".hex()
    board.radar.plug()
    assert "f4f3f2f1" in said(board, UART % 256_000)


def test_wifi_is_there_for_who_knows_its_password(board: VirtualBoard) -> None:
    code = """
import network
station = network.WLAN(network.STA_IF)
station.active(True)
station.connect('home', 'wrong'); print(station.isconnected(), station.status() == network.STAT_WRONG_PASSWORD)
station.connect('home', 'right'); print(station.isconnected())
"""
    board.put("wifi", "home\nright")
    assert said(board, code).split() == ["False", "True", "True"]
    board.put("wifi_down", "")
    assert said(board, code).split() == ["False", "False", "False"]
    board.take_away("wifi_down")
    board.take_away("wifi")


def test_names_are_those_that_it_is_given(board: VirtualBoard) -> None:
    board.put("names", "gateway.local 127.0.0.1")
    code = "import socket; print(socket.getaddrinfo('gateway.local', 1883)[0][-1][0])"
    assert said(board, code) == "127.0.0.1"
    assert mpremote(board, "exec", "import socket; socket.getaddrinfo('example.org', 80)").returncode == 1
