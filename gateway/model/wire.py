"""How JSON from a device is read: strictly, so that nothing is silently turned into something else.

Strict types mean that what is valid needs no rewriting: the bytes that arrived are the bytes that are stored. Fields
we do not know are kept. NaN and infinities are refused wherever they are, also as a number too large to be one
(`1e999`): no receiver could read them.
"""

from typing import Annotated

from pydantic import ConfigDict, Field
from typing_extensions import TypeAliasType

WIRE = ConfigDict(strict=True, allow_inf_nan=False)

Finite = Annotated[float, Field(allow_inf_nan=False)]

Json = TypeAliasType("Json", "int | Finite | str | bool | list[Json] | dict[str, Json] | None")
"""Any JSON without NaN and infinities: what an unknown field may hold."""
