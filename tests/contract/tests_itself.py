"""`Tests`: it says in whole sentences what works and what does not, and sends nothing that counts."""

import asyncio
from pathlib import Path

from cloud_sync.contract import Tests
from tests.contract.other_side import SECRET, Contract


class TriedContract(Contract):
    """Every integration that can be tried."""

    async def test_it_says_that_it_can_be_tried(self, tmp_path: Path) -> None:
        async with self.other_side(tmp_path) as side:
            assert isinstance(self.made(side), Tests)

    async def test_what_works_is_said_and_nothing_is_sent(self, tmp_path: Path) -> None:
        async with self.other_side(tmp_path) as side, self.made(side) as it:
            found = await it.check()
            assert found
            assert {finding.level for finding in found} <= {"ok", "warning"}
            assert side.received == []

    async def test_what_does_not_work_is_said_with_what_to_do(self, tmp_path: Path) -> None:
        async with self.other_side(tmp_path) as side:
            await side.go_away()
            async with self.made(side) as it, asyncio.timeout(30):
                found = await it.check()
            assert "broken" in {finding.level for finding in found}
            for finding in found:
                assert finding.words.endswith((".", "?"))
                assert finding.level == "ok" or finding.hint
                assert SECRET not in repr(finding)
