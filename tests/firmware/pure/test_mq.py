"""A gas sensor's arithmetic: also run by MicroPython."""

from drivers.mq_calibration import median
from drivers.mq_curves import channel as channel_of
from drivers.mq_curves import correction, curves

CIRCUIT = {"part": "mq135", "gas": "nh3", "load_ohm": 1000, "divider_top_ohm": 10_000, "divider_bottom_ohm": 9_100}


def near(one, other, part=0.001):
    return abs(one - other) <= part * abs(other)


def pin_uv(rs_ohm, load=1000, top=10_000, bottom=9_100, supply_uv=5_000_000):
    """What the converter measures at a sensor of that resistance: the circuit, the other way round."""
    parallel = 1 / (1 / load + 1 / (top + bottom))
    return supply_uv * parallel / (parallel + rs_ohm) * bottom / (top + bottom)


def test_the_resistance_is_that_of_the_circuit():
    for rs in (1_500, 10_000, 20_000):
        assert near(channel_of(CIRCUIT).rs_ohm(pin_uv(rs)), rs)


def test_the_divider_is_a_part_of_the_load():
    light = dict(CIRCUIT, load_ohm=20_000)
    rs = channel_of(light).rs_ohm(pin_uv(30_000, load=20_000))
    assert near(rs, 30_000)
    assert not near(
        channel_of(dict(light, divider_top_ohm=10_000_000, divider_bottom_ohm=9_100_000)).rs_ohm(
            pin_uv(30_000, load=20_000)
        ),
        30_000,
        0.1,
    )


def test_a_rail_is_no_resistance():
    channel = channel_of(CIRCUIT)
    assert channel.rs_ohm(0) is None
    assert channel.rs_ohm(49_000) is None
    assert channel.rs_ohm(2_460_000) is None
    assert channel.reading(10, is_warm=True)["state"] == "no_signal"
    assert channel.reading(3_000_000, is_warm=True)["state"] == "saturated"


def test_calibrated_in_clean_air_it_says_what_the_curve_says():
    channel = channel_of(CIRCUIT)
    rs_clean = 36_000
    assert near(channel.calibrate(rs_clean), 10_000)
    a, b = next(numbers[:2] for part, gas, numbers in curves() if (part, gas) == ("mq135", "nh3"))
    rs = 10_000 * (100 / a) ** (1 / b)
    reading = channel.reading(round(pin_uv(rs)), is_warm=True)
    assert reading["state"] == "ok"
    assert near(reading["gas_concentration"], 100, 0.01)
    assert near(reading["ratio"], rs / 10_000, 0.01)
    assert near(reading["rs_ohm"], rs, 0.01)


def test_beyond_its_curve_it_gives_no_number_but_the_raw_values():
    channel = channel_of(CIRCUIT, r0_ohm=10_000)
    reading = channel.reading(round(pin_uv(36_000)), is_warm=True)
    assert reading["state"] == "out_of_range"
    assert reading["gas_concentration"] == 0
    assert reading["raw_uv"] == round(pin_uv(36_000))
    assert near(reading["rs_ohm"], 36_000, 0.01)


def test_it_says_that_it_warms_up_and_that_it_is_not_calibrated():
    assert channel_of(CIRCUIT).reading(round(pin_uv(9_000)), is_warm=True)["state"] == "uncalibrated"
    assert channel_of(CIRCUIT).reading(round(pin_uv(9_000)), is_warm=False)["state"] == "warming"
    warming = channel_of(CIRCUIT, r0_ohm=10_000).reading(round(pin_uv(9_000)), is_warm=False)
    assert warming["state"] == "warming"
    assert warming["gas_concentration"] == 0


def test_every_curve_falls_and_comes_back():
    for part, gas, (a, b, least, most, _) in curves():
        channel = channel_of({"part": part, "gas": gas})
        for ppm in (least * 1.001, (least * most) ** 0.5, most * 0.999):
            assert near(channel.ppm((ppm / a) ** (1 / b)), ppm, 0.01)
        assert channel.ppm((most * 1.1 / a) ** (1 / b)) is None
        assert channel.ppm((least * 0.9 / a) ** (1 / b)) is None
    assert channel_of(CIRCUIT).ppm(0) is None


def test_another_part_needs_its_own_curve():
    try:
        channel_of({"part": "mq138", "gas": "benzene"})
    except ValueError as error:
        assert "set a, b" in str(error)
    else:
        raise AssertionError("it was taken")
    own = channel_of({"part": "mq138", "gas": "benzene", "a": 50, "b": -2, "clean_air_ratio": 4, "ppm_min": 1})
    assert near(own.ppm(1), 50)


def test_settings_that_cannot_be_are_refused():
    for wrong in ({"load_ohm": 0}, {"divider_bottom_ohm": 0}, {"supply_mv": 0}, {"a": -1}, {"b": 1}):
        try:
            channel_of(dict(CIRCUIT, **wrong))
        except ValueError:
            pass
        else:
            raise AssertionError(wrong)


def test_warm_and_damp_air_is_corrected():
    assert near(correction(20, 33), 0.99178, 0.001)
    channel = channel_of(CIRCUIT, r0_ohm=10_000)
    uv = round(pin_uv(9_000))
    assert near(
        channel.reading(uv, is_warm=True, temperature_c=35, humidity_pct=80)["rs_ohm"], 9_000 / correction(35, 80), 0.01
    )


def test_a_spike_does_not_move_the_median():
    assert median([5, 1_000_000, 4, 6, 5]) == 5
