"""How much is tried: what every change passes within minutes, or, by `--hypothesis-profile thorough`, all of it."""

from hypothesis import settings

THOROUGH = settings.default is settings.get_profile("thorough")


def much(usual: int, thorough: int) -> int:
    """Return one of them."""
    return thorough if THOROUGH else usual
