"""Asking a gateway over HTTP, and how long it takes to answer."""

import time
from typing import Any

import aiohttp


async def get(port: int, path: str) -> dict[str, Any]:
    """Return the JSON document at a path."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        document: dict[str, Any] = await answer.json()
    return document


async def answer_ms(port: int, path: str) -> float:
    """Return how long it takes until the whole answer is there."""
    async with aiohttp.ClientSession() as session:
        started = time.perf_counter()
        async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
            answer.raise_for_status()
            await answer.read()
        return (time.perf_counter() - started) * 1000
