"""Where readings come from besides the front door: simulated sensors, serial lines, later other brokers."""
