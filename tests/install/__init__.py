"""Installing as its owner does: the wheel, what it needs, and the program that comes of it."""
