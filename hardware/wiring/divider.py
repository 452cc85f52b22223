"""Draws the divider between the gas module and the board: `python divider.py` writes divider.svg (needs schemdraw)."""

import tomllib
from pathlib import Path

import schemdraw
from schemdraw import elements as elm

HERE = Path(__file__).parent


def _ohm(value: int) -> str:
    return f"{value / 1000:g} kΩ"


def main() -> None:
    """Draw it with the values of the pin map."""
    pinmap = tomllib.loads((HERE.parent / "pinmap.toml").read_text(encoding="utf-8"))
    divider = pinmap["divider"]
    gas = next(pin for pin in pinmap["pin"] if pin["name"] == "gas")
    schemdraw.use("svg")
    with schemdraw.Drawing(file=str(HERE / "divider.svg"), show=False) as drawing:
        drawing.config(fontsize=13, margin=0.6)
        elm.Dot(open=True).label("AOUT of the MQ module\n0 to 5 V  ", loc="left")
        elm.Resistor().right().label(f"R1  {_ohm(divider['top_ohm'])}")
        middle = elm.Dot()
        elm.Line().right().length(2)
        tap = elm.Dot()
        elm.Line().right().length(1)
        elm.Dot(open=True).label(f"GPIO {gas['gpio']}\n0 to 2.4 V", loc="right")
        elm.Resistor().down().at(middle.center).label(f"R2  {_ohm(divider['bottom_ohm'])}", loc="top")
        elm.Ground()
        elm.Capacitor().down().at(tap.center).label(f"C1  {divider['filter_nf']} nF", loc="bottom")
        elm.Ground()


if __name__ == "__main__":
    main()
