"""Values as JSON has them."""

import math
from typing import Any


def is_finite(value: Any) -> bool:  # noqa: ANN401 - JSON
    """Whether every number in it is one: `1e999` is read as an infinity, which JSON cannot express."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(is_finite, value.values()))
    if isinstance(value, list):
        return all(map(is_finite, value))
    return True
