"""Everything on disk: the log of readings, and the state beside it."""
