"""`Config`: one schema says all there is to say of an integration, and no secret comes out of it."""

import json
from pathlib import Path

from cloud_sync.config_schema import joined, schema_of, split
from cloud_sync.contract import capabilities
from tests.contract.other_side import SECRET, Contract


class ConfigContract(Contract):
    """Every integration."""

    def test_every_setting_has_a_meaning_and_so_has_the_whole(self) -> None:
        schema = schema_of(self.integration)
        assert schema.description.endswith(".")
        assert [one.key for one in schema.settings if not one.description.endswith((".", "all."))] == []
        assert schema.type == self.integration.type
        assert schema.capabilities == capabilities(self.integration)

    def test_the_schema_is_json(self) -> None:
        schema = schema_of(self.integration)
        assert json.loads(json.dumps(schema.json_schema)) == schema.json_schema

    async def test_no_secret_is_shown_and_none_is_lost(self, tmp_path: Path) -> None:
        async with self.other_side(tmp_path) as side:
            raw = json.loads(json.dumps(side.settings, default=str))
            shown, secret = split(self.integration.Config, raw)
            assert SECRET not in repr(shown)
            assert joined(shown, secret) == raw
            config = self.made(side).config
            assert SECRET not in repr(config) + str(config) + config.model_dump_json()
