"""A board without hardware: a real MicroPython behind a serial port, with simulated pins. See README.md."""
