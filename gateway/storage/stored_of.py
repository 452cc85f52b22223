"""What the log holds of one organisation, by kind: whether anything of it would be left behind."""

from gateway.storage.log_reader import LogReader

_FIND = {
    "readings": """SELECT 1 FROM streams WHERE organization_id = ?1 AND EXISTS (
        SELECT 1 FROM device_telemetry_history WHERE stream = streams.id) LIMIT 1""",
    "dead letters": "SELECT 1 FROM dead_letters WHERE organization_id = ?1 LIMIT 1",
    "quarantined input": "SELECT 1 FROM quarantine WHERE organization_id = ?1 LIMIT 1",
    "retained messages": "SELECT 1 FROM retained_messages WHERE substr(topic, 1, length(?1) + 1) = ?1 || '/' LIMIT 1",
}


async def stored_of(log: LogReader, organization_id: str) -> list[str]:
    """Return which kinds of things are stored of the organisation. Raises StoreFailed during a salvage."""
    await log.require_whole()
    return [kind for kind, query in _FIND.items() if list(await log.fetch(query, (organization_id,)))]
