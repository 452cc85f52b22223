"""What keeps secrets out of a bundle: the last fence, behind the masks of settings and log lines.

- every secret that is known here is looked for in every text: those of the configuration, those that it refers to in
  the environment and in files, variables whose name looks secret, and the keys in the data directory; each also as it
  looks in JSON, in a URL and in base64
- what nobody told us of is known by its looks: `password=…`, credentials, queries and tokens in URLs, private keys,
  JWTs, signing secrets, and long texts of hexadecimal or mixed characters, as our own passwords and tokens are

It errs on the side of hiding.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from gateway.config import LoadedConfig
from gateway.config.masking import MASK, looks_secret, without_credentials
from gateway.model.errors import ConfigError
from gateway.shown_config import secret_settings

_SHORTEST = 6  # a shorter one would be found in words
_KEY_BYTES_AT_MOST = 4_096
_REFERENCE = re.compile(r"\$\{(env|file):([^}]+)\}")
_URL = re.compile(
    r"(?P<start>[a-z][a-z0-9+.-]*://[^\s/?#\"'<>\\]*)(?P<path>[^\s?#\"'<>\\)]*)(?P<rest>[?#][^\s\"'<>\\)]*)?",
    re.IGNORECASE,
)
_TOKEN_PART = re.compile(r"(?=.*[A-Za-z])(?=.*[0-9]).{6,}|.{16,}")
_LOOKS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|\bwhsec_[A-Za-z0-9+/=_-]+"
    r"|\bngt_[A-Za-z0-9_-]+"
    r"|\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"
    r"|(?i:\b(?:bearer|basic)\s+)[A-Za-z0-9+/=._~-]{6,}"
    r"|(?<![A-Za-z0-9])[0-9A-Fa-f]{32,}(?![A-Za-z0-9])"
    r"|(?<![A-Za-z0-9_-])(?=[A-Za-z0-9_-]*[a-z])(?=[A-Za-z0-9_-]*[A-Z])(?=[A-Za-z0-9_-]*[0-9])[A-Za-z0-9_-]{24,}",
    re.DOTALL,
)


class Redaction:
    """Takes secrets out of texts."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = {form for secret in secrets for form in _forms(secret) if len(form) >= _SHORTEST}
        # The longest first: one may be a part of another.
        words = sorted(known, key=lambda word: (-len(word), word))
        self._known = re.compile("|".join(map(re.escape, words))) if words else None

    @classmethod
    def of(cls, loaded: LoadedConfig, environ: Mapping[str, str], data_dir: Path) -> "Redaction":
        """Return one that knows all secrets that this machine's gateway has."""
        return cls([*_configured(loaded, environ), *_named_so(environ), *_keys(data_dir)])

    def redacted(self, text: str) -> str:
        """Return the text without secrets."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        return _LOOKS.sub(MASK, _URL.sub(_shown_url, without_credentials(text)))


def _shown_url(found: re.Match[str]) -> str:
    parts = (MASK if _TOKEN_PART.fullmatch(part) else part for part in found["path"].split("/"))
    rest = f"{found['rest'][0]}{MASK}" if found["rest"] else ""
    return f"{found['start']}{'/'.join(parts)}{rest}"


def _forms(secret: str) -> Iterator[str]:
    for one in {secret, secret.strip(), *secret.split()}:
        yield one
        yield one.removeprefix("whsec_")
        yield json.dumps(one)[1:-1]
        yield quote(one, safe="")
        yield base64.b64encode(one.encode(errors="surrogateescape")).decode().rstrip("=")


def _configured(loaded: LoadedConfig, environ: Mapping[str, str]) -> Iterator[str]:
    with suppress(ConfigError):  # of an integration that is wrong, only what it refers to is known
        for _, secret, _ in secret_settings(loaded):
            yield secret
    for origin in loaded.origins.values():
        for kind, name in _REFERENCE.findall(origin):
            if kind == "env":
                yield environ.get(name, "")
            else:
                folder = loaded.path.parent if loaded.path else Path.cwd()
                with suppress(OSError, UnicodeDecodeError):
                    yield (folder / name).read_text("utf-8")


def _named_so(environ: Mapping[str, str]) -> Iterator[str]:
    return (value for name, value in environ.items() if looks_secret(name))


def _keys(data_dir: Path) -> Iterator[str]:
    for file in data_dir.glob("*.key"):
        with suppress(OSError):
            if file.stat().st_size <= _KEY_BYTES_AT_MOST:
                raw = file.read_bytes()
                yield raw.hex()
                yield base64.b64encode(raw).decode().rstrip("=")
                yield base64.urlsafe_b64encode(raw).decode().rstrip("=")
                with suppress(UnicodeDecodeError):
                    yield raw.decode()
