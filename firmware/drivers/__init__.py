"""The sensors of a board. What is pure arithmetic or bytes lies apart from what waits for hardware."""


class RadarError(Exception):
    """The radar did not do what it was asked, or did not say that it did; the words say which."""
