"""The radar's commands and acknowledgements, byte for byte as its maker documents them: also run by MicroPython."""

from drivers import RadarError
from drivers import ld2410_commands as commands
from drivers import ld2410_setting as setting
from drivers.ld2410_dialogue import begin
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


class Radar:
    """What a dialogue knows of one."""

    is_configuring = False
    hear_answer = None


async def heard(line, command, size=1_000):
    """Return the value with which a command is answered on a line that brings so many bytes at once."""
    radar = Radar()
    dialogue = await begin(radar)
    dialogue.listen_for(command)
    for start in range(0, len(line), size):
        radar.hear_answer(line[start : start + size])
    assert len(dialogue._heard) <= 80
    return dialogue.answer


async def test_acknowledgements_are_found_wherever_they_are_cut():
    line = REPORT + ENABLED + REPORT[:9] + VERSION + b"\xfd\xfc" + PARAMETERS + REPORT * 9
    for size in range(1, len(line)):
        assert await heard(line, 0xFF, size) == (0, b"\x01\x00\x40\x00"), size
        assert await heard(line, 0xA0, size) == (0, VERSION[10:-4]), size
        assert await heard(line, 0x61, size) == (0, PARAMETERS[10:-4]), size
        assert await heard(line, 0x62, size) is None


async def test_a_damaged_one_is_none_and_costs_no_other():
    flawed = ENABLED[:4] + b"\xff\xff" + ENABLED[6:]
    short = ENABLED[:4] + b"\x02\x00" + ENABLED[6:]
    for damaged in (ENABLED[:-5], flawed, short, ENABLED[:-1] + b"\x00", ENABLED[4:]):
        assert await heard(damaged + VERSION, 0xFF) is None
        assert await heard(damaged + VERSION, 0xA0) == (0, VERSION[10:-4])


async def test_noise_is_not_collected():
    assert await heard((b"\xfd\xfc\xfb\xfa\x40\x00" + bytes(50)) * 100, 0, 56) is None


async def test_a_refusal_is_seen():
    assert await heard(bytes.fromhex("FDFCFBFA04006001010004030201"), 0x60) == (1, b"")


def test_version_and_parameters():
    assert commands.version(VERSION[10:-4]) == "V1.07.22091516"
    maker = "FDFCFBFA1C0061010000AA08080832321E1E" + "1E1E0F0F0F" + "0000282828281E1E14" + "050004030201"
    told = commands.parameters(bytes.fromhex(maker)[10:-4])
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
