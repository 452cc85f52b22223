"""Whether the HTTP ports answer as a client sees it: health, metrics, and both kinds of WebSocket."""

import asyncio
from collections.abc import Awaitable

import aiohttp

from gateway.doctor.evidence import Evidence
from gateway.doctor.listeners import Listener, named
from gateway.model.finding import Finding, broken, fine

_TIMEOUT = aiohttp.ClientTimeout(total=5)
_OK = 200
_HINT = "See the gateway's log; if it says nothing, restart the gateway."


async def http(evidence: Evidence) -> list[Finding]:
    """Ask the running gateway."""
    if evidence.status is None:
        return []
    main, metrics = named(evidence, "http.port"), named(evidence, "http.metrics_port")
    sockets = (
        (named(evidence, "mqtt.websocket_port"), "/mqtt", ("mqtt",), "MQTT over WebSocket"),
        (main, "/mqtt", ("mqtt",), "MQTT over WebSocket"),
        (main, "/ws", (), "Live readings"),
        (named(evidence, "http.websocket_port"), "/ws", (), "Live readings"),
    )
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        asked: list[Awaitable[Finding]] = [
            _answers(session, one, path)
            for one in (main, metrics)
            if one is not None
            for path in ("/health", "/metrics")
        ]
        asked += [_upgrades(session, one, *rest) for one, *rest in sockets if one is not None]  # type: ignore[arg-type]
        found = await asyncio.gather(*asked)
    bad = [one for one in found if one.level != "ok"]
    return bad or [fine("Health, metrics and WebSockets answer.")]


async def _answers(session: aiohttp.ClientSession, one: Listener, path: str) -> Finding:
    where = f"{path} on port {one.port}"
    try:
        async with session.get(f"http://{_authority(one)}{path}") as answer:
            if answer.status == _OK:
                return fine(f"{where} answers.")
            return broken(f"{where} answers HTTP {answer.status}.", _HINT)
    except (aiohttp.ClientError, TimeoutError) as error:
        return broken(f"{where} does not answer ({type(error).__name__}).", _HINT)


async def _upgrades(
    session: aiohttp.ClientSession, one: Listener, path: str, protocols: tuple[str, ...], what: str
) -> Finding:
    where = f"{what} ({path} on port {one.port})"
    try:
        async with session.ws_connect(f"http://{_authority(one)}{path}", protocols=protocols):
            return fine(f"{where} answers.")
    except (aiohttp.ClientError, TimeoutError) as error:
        return broken(f"{where} cannot be opened ({type(error).__name__}).", _HINT)


def _authority(one: Listener) -> str:
    return f"[{one.local}]:{one.port}" if ":" in one.local else f"{one.local}:{one.port}"
