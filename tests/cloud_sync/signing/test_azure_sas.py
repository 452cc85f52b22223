"""Azure's own SDKs, of two languages, make the same tokens."""

import json
from pathlib import Path
from typing import Any

import pytest

from cloud_sync.signing.azure_sas import parse_key, token

TOKENS = json.loads(Path(__file__).with_name("azure_sas.json").read_text())["tokens"]


@pytest.mark.parametrize("made", TOKENS)
def test_a_token_is_that_of_azures_sdks(made: dict[str, Any]) -> None:
    ours = token(made["uri"], parse_key(made["key"]), made["expires_s"], made["policy"])
    assert ours == made["python"]
    assert sorted(ours.split("&")[1:]) == sorted(made["node"].split("&")[1:])
    assert ours.split("&")[0] == made["node"].split("&")[0]


@pytest.mark.parametrize("text", ["", "secret key", "QUJ", "é"])
def test_what_is_no_key_is_said_without_it(text: str) -> None:
    with pytest.raises(ValueError, match="not base64") as caught:
        parse_key(text)
    assert "secret key" not in str(caught.value)
