"""Tables of `state.db`: small and precious, so apart from the log that can be damaged or rebuilt."""

STATE_MIGRATIONS = (
    (
        """CREATE TABLE devices (
            organization_id TEXT NOT NULL,
            id TEXT NOT NULL,
            name TEXT NOT NULL DEFAULT '',
            serial_number TEXT NOT NULL DEFAULT '',
            hardware_ids TEXT NOT NULL DEFAULT '[]',
            metadata TEXT NOT NULL DEFAULT '{}',
            status TEXT NOT NULL DEFAULT 'active',
            last_seen_at INTEGER,
            created_at INTEGER NOT NULL,
            PRIMARY KEY (organization_id, id)
        ) WITHOUT ROWID""",
        # One row a credential: a device's own, or (device_id NULL) an organisation's.
        """CREATE TABLE mqtt_credentials (
            username TEXT PRIMARY KEY,
            organization_id TEXT NOT NULL,
            device_id TEXT,
            password_hash BLOB NOT NULL UNIQUE,
            topic_prefix TEXT NOT NULL,
            created_at INTEGER NOT NULL,
            FOREIGN KEY (organization_id, device_id) REFERENCES devices (organization_id, id) ON DELETE CASCADE
        ) WITHOUT ROWID""",
    ),
)
