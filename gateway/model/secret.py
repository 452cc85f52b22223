"""A text that never prints: what a setting, a vault or a request holds of passwords, tokens and keys.

`repr`, `str`, `format`, JSON of a model and whatever logs or formats it show `**********`; JSON of it alone and pickle
refuse. The text itself is had only by asking for it by name, `get_secret_value()`, so every use can be found.
"""

import re
from typing import NoReturn, Self, SupportsIndex

from pydantic import SecretStr

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Secret(SecretStr):
    """See the module's own words. pydantic's own type, but for pickle, which would write the text down."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("A secret cannot be pickled.")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


def is_secret_name(text: str) -> bool:
    """Tell whether a secret of the vault may be called this."""
    return _NAME.fullmatch(text) is not None
