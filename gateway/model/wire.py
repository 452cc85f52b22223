"""How JSON from a device is read: strictly, so that nothing is silently turned into something else.

Strict types mean that what is valid needs no rewriting: the bytes that arrived are the bytes that are stored. Fields
we do not know are kept. NaN and infinities are refused: they are not JSON, and no receiver could read them.
"""

from pydantic import ConfigDict

WIRE = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)
