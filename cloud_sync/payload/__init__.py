"""Bodies made of a batch of readings: pure functions, and the same bytes for the same batch."""
