"""The radar's commands and acknowledgements, byte for byte as its maker documents them: also run by MicroPython."""

from drivers import RadarError
from drivers import ld2410_commands as commands
from drivers import ld2410_setting as setting
from drivers.ld2410_commands import AckReader
from drivers.ld2410_search import LEAVE

ENABLED = bytes.fromhex("FDFCFBFA0800FF0100000100400004030201")
VERSION = bytes.fromhex("FDFCFBFA0C00A0010000000107011615092204030201")
PARAMETERS = bytes.fromhex("FDFCFBFA1C0061010000AA08080832321E1E1E1E0F0F0F00002828" + "1E1E141414" + "050004030201")
REPORT = bytes.fromhex("f4f3f2f10d0002aa0251000000003b00005500f8f7f6f5")


def hexed(data):
    return "".join("%02X" % byte for byte in data)


def refused(what, *arguments):
    try:
        what(*arguments)
    except ValueError as error:
        return str(error)
    raise AssertionError(arguments)


def test_commands_are_those_of_the_maker():
    assert hexed(commands.enable()) == "FDFCFBFA0400FF00010004030201"
    assert hexed(commands.encode(commands.END_CONFIGURATION)) == hexed(LEAVE) == "FDFCFBFA0200FE0004030201"
    assert hexed(commands.encode(commands.READ_VERSION)) == "FDFCFBFA0200A00004030201"
    assert hexed(setting.set_gates(8, 8, 5)) == "FDFCFBFA14006000000008000000010008000000020005000000" + "04030201"
    assert (
        hexed(setting.set_sensitivity(3, 40, 40)) == "FDFCFBFA14006400000003000000010028000000020028000000" + "04030201"
    )
    assert hexed(setting.set_sensitivity(setting.ALL_GATES, 40, 40))[16:28] == "0000FFFF0000"


def test_what_the_radar_cannot_do_is_refused_in_words():
    assert "moving must be" in refused(setting.set_gates, 1, 8, 5)
    assert "stationary must be" in refused(setting.set_gates, 8, 9, 5)
    assert "nobody_s must be" in refused(setting.set_gates, 8, 8, 65536)
    assert "gate must be" in refused(setting.set_sensitivity, 9, 1, 1)
    assert "moving must be" in refused(setting.set_sensitivity, 0, 101, 1)
    assert "stationary must be" in refused(setting.set_sensitivity, 0, 1, None)
    assert "moving must be" in refused(setting.set_gates, "8", 8, 5)


def test_acknowledgements_are_found_wherever_they_are_cut():
    line = REPORT + ENABLED + REPORT[:9] + VERSION + b"\xfd\xfc" + ENABLED
    for size in range(1, len(line)):
        reader = AckReader()
        found = []
        for start in range(0, len(line), size):
            found += reader.feed(line[start : start + size])
        assert [command for command, _, _ in found] == [0xFF, 0xA0, 0xFF], size
    assert found[0] == (0xFF, 0, b"\x01\x00\x40\x00")


def test_a_damaged_one_costs_no_other():
    reader = AckReader()
    assert reader.feed(ENABLED[:-5] + VERSION) == [(0xA0, 0, VERSION[10:-4])]
    flawed = ENABLED[:4] + b"\xff\xff" + ENABLED[6:]
    assert [command for command, _, _ in AckReader().feed(flawed + VERSION)] == [0xA0]
    wrong_tail = ENABLED[:-1] + b"\x00"
    assert [command for command, _, _ in AckReader().feed(wrong_tail + VERSION)] == [0xA0]


def test_noise_is_not_collected():
    reader = AckReader()
    for _ in range(100):
        assert reader.feed(b"\xfd\xfc\xfb\xfa\x40\x00" + bytes(50)) == []
        assert len(reader._waiting) < 80


def test_a_refusal_is_seen():
    assert AckReader().feed(bytes.fromhex("FDFCFBFA04006001010004030201")) == [(0x60, 1, b"")]


def test_version_and_parameters():
    ((_, _, value),) = AckReader().feed(VERSION)
    assert commands.version(value) == "V1.07.22091516"
    maker = "FDFCFBFA1C0061010000AA08080832321E1E" + "1E1E0F0F0F" + "0000282828281E1E14" + "050004030201"
    ((_, _, value),) = AckReader().feed(bytes.fromhex(maker))
    told = commands.parameters(value)
    assert told["moving_gate"] == told["stationary_gate"] == 8
    assert told["moving_sensitivity"] == [50, 50, 30, 30, 30, 30, 15, 15, 15]
    assert told["stationary_sensitivity"] == [0, 0, 40, 40, 40, 40, 30, 30, 20]
    assert told["nobody_s"] == 5


def test_short_answers_are_errors_not_crashes():
    for what in (commands.version, commands.parameters):
        for size in range(8):
            try:
                what(b"\xaa\x08\x08\x08\x32\x32\x1e\x1e"[:size])
            except RadarError:
                continue
            raise AssertionError(size)
