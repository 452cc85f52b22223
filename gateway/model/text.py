"""What may be shown, stored and sent as text."""

import unicodedata

_UNFIT = frozenset({"Cc", "Cs"})  # control characters; halves of surrogate pairs, as a lone byte from a shell becomes


def is_clean_text(text: str) -> bool:
    """Whether the text has no control characters and can be encoded in UTF-8."""
    return not any(unicodedata.category(character) in _UNFIT for character in text)
