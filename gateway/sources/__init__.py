"""Where readings come from besides the front door: simulated sensors, later USB sensors and other brokers."""
