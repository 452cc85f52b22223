"""`neurogate`, its clock set by another process: `python -m tests.promises.gateway_with_false_clock FILE run …`."""

import sys
from functools import partial
from pathlib import Path
from unittest.mock import patch

from gateway import app
from gateway.cli import main
from tests.promises.false_clock import ClockFile, FalseClock

if __name__ == "__main__":
    patch.object(app, "SystemClock", partial(FalseClock, ClockFile(Path(sys.argv.pop(1))))).start()
    main()
