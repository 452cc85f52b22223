"""A gateway, and a token to ask its HTTP API with."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.model.roles import Role
from gateway.operations.tokens import create_token
from tests.site import Site, running_site


@dataclass
class Asker:
    """Somebody with a token."""

    site: Site
    token: str

    async def get(self, path: str, **query: str | int) -> tuple[int, Any]:
        return await self.ask("GET", path, query)

    async def post(self, path: str, body: object) -> tuple[int, Any]:
        return await self.ask("POST", path, {}, json.dumps(body))

    async def ask(
        self, method: str, path: str, query: dict[str, str | int], data: str | None = None
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.token}"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        async with self.site.http.request(
            method, self.site.url(path), params=query, data=data, headers=headers
        ) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else None


async def asker(site: Site, role: Role = "member", organization_id: str | None = "default") -> Asker:
    """Return somebody new, of an organisation or (None) of the site."""
    name = f"{organization_id or 'site'}-{role}"
    new = await site.command(create_token, name=name, organization_id=organization_id, role=role)
    return Asker(site, new.token)


@asynccontextmanager
async def running_api(folder: Path, role: Role = "member", **tables: Any) -> AsyncIterator[Asker]:
    """Run a gateway that does not limit how often it is asked."""
    http = {"rate_limit_per_minute": 0} | tables.pop("http", {})
    async with running_site(folder, http=http, **tables) as site:
        yield await asker(site, role)
