"""Measurements, not tests: `scripts/bench`. Everything runs on 127.0.0.1 and ends by itself."""
