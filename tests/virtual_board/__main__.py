"""`scripts/virtual-board [FOLDER]`: a board for a person, who moves about in front of it by words."""

import sys
from pathlib import Path

from tests.virtual_board.virtual_board import VirtualBoard

HELP = """\
  person 150       somebody moves at 150 cm; still 150: somebody sits there; nobody: nobody is there
  motion on|off    what the PIR says
  gas 812000       microvolts at the gas sensor's pin
  radar off|on     unplug the radar, plug it in
  wifi off|on      the network goes, and comes
  power off|on     a power cut, and its end
  quit"""
FLASH = """\
A board with blank flash is on {port}. With a gateway on this machine (neurogate run), in another terminal:

    .venv/bin/neurogate device flash --port {port} --device virtual --wifi home --host 127.0.0.1
    .venv/bin/neurogate device logs --port {port}
    .venv/bin/neurogate tail

Its Wi-Fi takes any password. Its folder is {folder}: what it has on its flash is there the next time too.
"""


def obey(board: VirtualBoard, line: str) -> str:  # noqa: C901 - a table of commands
    """Carry out one line; returns what is to be said."""
    match line.split():
        case [("person" | "still") as how, distance] if distance.isdigit():
            board.radar.see(int(distance), moving=how == "person")
        case ["nobody"]:
            board.radar.see(None)
        case ["motion", ("on" | "off") as state]:
            board.motion(seen=state == "on")
        case ["gas", microvolts] if microvolts.isdigit():
            board.put("adc34", microvolts)
        case ["radar", "on"]:
            board.radar.plug()
        case ["radar", "off"]:
            board.radar.unplug()
        case ["wifi", "on"]:
            board.take_away("wifi_down")
        case ["wifi", "off"]:
            board.put("wifi_down", "")
        case ["power", ("on" | "off") as state]:
            board.power(on=state == "on")
        case []:
            return ""
        case _:
            return HELP
    return "ok"


def main() -> None:
    """Be a board until `quit` or Ctrl-C."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "virtual-board").resolve()
    with VirtualBoard(folder) as board:
        print(FLASH.format(port=board.port, folder=folder))
        print(HELP)
        try:
            while (line := input("> ").strip()) != "quit":
                print(obey(board, line))
        except (EOFError, KeyboardInterrupt):
            print()


if __name__ == "__main__":
    main()
