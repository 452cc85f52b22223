"""The settings of every integration written down for people, from the same schema that the API and the forms have.

`python -m cloud_sync.reference > cloud_sync/integrations/README.md` renews the reference.
"""

import sys
from collections.abc import Iterable, Iterator

from cloud_sync.config_schema import IntegrationSchema, SettingSchema, schema_of
from cloud_sync.contract import Integration
from cloud_sync.registry import BUILT_IN, class_of
from gateway.config.schema import as_toml

_HEAD = """\
# Integrations

<!-- Made by `python -m cloud_sync.reference`; do not edit. -->

Each stands in an `[[integrations]]` table of the configuration file, or is managed while the gateway runs, over the API
and by `neurogate integration`. The settings are the same; what is secret is kept in the vault, and never shown.
"""

_COMMON = """
## Every integration

One of the file has `type`, `name` and `organizations` among its settings. One that an organisation manages has a type
and a name beside them, and gets the readings of that organisation only.

"""


class _Any(Integration):
    """What all have."""

    type = ""


def markdown() -> str:
    """Return README.md of the integrations' folder."""
    common = schema_of(_Any, without=())
    keys = {one.key for one in common.settings}
    parts = [_HEAD, _COMMON, *_table(common.settings)]
    for name in sorted(BUILT_IN):
        schema = schema_of(class_of(name), without=())
        parts += _section(schema, [one for one in schema.settings if one.key not in keys])
    return "".join(parts)


def _section(schema: IntegrationSchema, settings: Iterable[SettingSchema]) -> Iterator[str]:
    can = ", ".join(schema.capabilities) or "nothing yet"
    yield f"\n## `{schema.type}`\n\n{schema.description} It can: {can}.\n\n"
    yield from _table(settings)


def _table(settings: Iterable[SettingSchema]) -> Iterator[str]:
    yield "| key | type | default | meaning |\n|---|---|---|---|\n"
    for one in settings:
        default = "required" if one.required else "" if one.default is None else f"`{as_toml(one.default)}`"
        kind = f"{one.type}; secret" if one.secret and "secret" not in one.type else one.type
        yield f"| `{one.key}` | {kind} | {default} | {one.description} |\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
