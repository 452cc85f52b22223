"""Secrets that can be recognised, and the places where none of them may turn up.

To look at one more place, `note` what is there; to plant one more secret, take a `new` one or `add` what was made.
"""

import base64
import secrets
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote


@dataclass
class Plants:
    """The secrets, by what they are."""

    by_name: dict[str, bytes] = field(default_factory=dict)

    def new(self, name: str) -> str:
        """Return a new secret: 40 characters that are good in a header, in a path and in TOML."""
        return self.add(name, f"planted-{secrets.token_hex(16)}")

    def add(self, name: str, secret: str | bytes) -> str:
        """Know of one that was made elsewhere."""
        content = secret.encode() if isinstance(secret, str) else secret
        assert self.by_name.setdefault(name, content) == content, name
        return content.decode(errors="replace")

    def forms(self) -> Iterator[tuple[str, bytes]]:
        """Yield each as it is, and as it may have been written down."""
        for name, secret in self.by_name.items():
            yield name, secret
            yield f"{name} in hexadecimal", secret.hex().encode()
            yield f"{name} in a URL", quote(secret, safe="").encode()
            yield f"{name} without its word", secret.removeprefix(b"whsec_").removeprefix(b"ngt_")
            for shift in range(3):  # where it begins within a longer text decides how base64 writes it
                coded = base64.b64encode(b"\0" * shift + secret)
                yield f"{name} in base64", coded[4 if shift else 0 : -4]


@dataclass
class Places:
    """What was seen where."""

    seen: list[tuple[str, bytes, frozenset[str]]] = field(default_factory=list)

    def note(self, place: str, content: str | bytes, *, shows: Collection[str] = ()) -> None:
        """Look at a place; `shows` names the secrets that it shows on purpose."""
        text = content.encode(errors="surrogateescape") if isinstance(content, str) else content
        self.seen.append((place, text, frozenset(shows)))

    def found(self, plants: Plants) -> list[str]:
        """Return what was found where."""
        forms = list(plants.forms())
        return [
            f"{name} in {place}: …{_around(content, form)}…"
            for place, content, shown in self.seen
            for name, form in forms
            if form in content and name.partition(" in ")[0].partition(" without ")[0] not in shown
        ]


def _around(content: bytes, form: bytes) -> str:
    at = content.index(form)
    return repr(content[max(0, at - 80) : at + len(form) + 20])
