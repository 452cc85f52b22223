"""The sensors of a board. What is pure arithmetic or bytes lies apart from what waits for hardware."""
