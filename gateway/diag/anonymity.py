"""Other names for whoever and whatever a bundle is about: devices, organisations, machines, addresses.

The same thing has the same new name all through a bundle, so what happened to whom can still be followed.
"""

import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from ipaddress import ip_address

from gateway.config import LoadedConfig
from gateway.operations.integrations import IntegrationView

_ADDRESS = re.compile(r"(?<![\w.:])(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*[0-9A-Fa-f:])(?!\w)")
_MAC = re.compile(r"(?<![0-9A-Fa-f:])(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?![0-9A-Fa-f:])")
_HOME = re.compile(r"/home/[^/\s\"']+")
_HOST = re.compile(r"[a-z][a-z0-9+.-]*://(?:[^@/?#]*@)?([A-Za-z0-9.-]*[A-Za-z][A-Za-z0-9.-]*)", re.IGNORECASE)


class Anonymity:
    """Replaces names by numbers."""

    def __init__(self, nobodys: Collection[str] = (), **kinds: Iterable[str]) -> None:
        """`kinds` are the names of each kind: `device=["kitchen"]` becomes `device-1`. `nobodys` names are kept."""
        self._names: dict[str, str] = {}
        for kind, names in kinds.items():
            for name in sorted({name for name in names if name and name not in nobodys}):
                self._names.setdefault(name, f"{kind}-{len(self._names) + 1}")
        words = sorted(self._names, key=lambda name: (-len(name), name))
        self._words = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)") if words else None

    def renamed(self, text: str) -> str:
        """Return the text with other names."""
        if self._words is not None:
            text = self._words.sub(lambda found: self._names[found[0]], text)
        text = _MAC.sub(self._address, _HOME.sub("/home/user", text))
        return _ADDRESS.sub(self._address_if_one, text)

    def _address_if_one(self, found: re.Match[str]) -> str:
        with suppress(ValueError):
            address = ip_address(found[0])
            if not address.is_loopback and not address.is_unspecified:
                return self._address(found)
        return found[0]

    def _address(self, found: re.Match[str]) -> str:
        return self._names.setdefault(found[0], f"address-{len(self._names) + 1}")


def hosts_in(loaded: LoadedConfig, managed: Iterable[IntegrationView] = ()) -> set[str]:
    """Return the names of the machines that the integrations' addresses lead to: the file's, and organisations'."""
    values = [value for table in loaded.settings.integrations for value in (table.model_extra or {}).values()]
    texts = map(str, [*values, *(value for one in managed for value in one.settings.values())])
    return {host for text in texts for host in _HOST.findall(text)}
