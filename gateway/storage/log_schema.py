"""Tables of `log.db`, the append-only side of the store."""

LOG_MIGRATIONS = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        # A row keeps the gateway's boot and monotonic time, so that a clock set later can be applied on reading.
        "CREATE TABLE gateway_boots (id INTEGER PRIMARY KEY, started_at_ms INTEGER NOT NULL)",
        # (device, boot_id) interned to one integer: text keys halve the append rate.
        """CREATE TABLE streams (
            id INTEGER PRIMARY KEY,
            organization_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            boot_id TEXT NOT NULL,
            UNIQUE (organization_id, device_id, boot_id)
        )""",
        "CREATE TABLE device_metadata (id INTEGER PRIMARY KEY, json TEXT NOT NULL UNIQUE)",
        """CREATE TABLE device_telemetry_history (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            stream INTEGER NOT NULL REFERENCES streams (id),
            seq INTEGER,
            time_ms INTEGER NOT NULL,
            time_source INTEGER NOT NULL,
            received_at_ms INTEGER NOT NULL,
            gateway_boot INTEGER NOT NULL REFERENCES gateway_boots (id),
            monotonic_ms INTEGER NOT NULL,
            metadata INTEGER REFERENCES device_metadata (id),
            payload BLOB NOT NULL,
            raw BLOB
        )""",
        "CREATE UNIQUE INDEX device_telemetry_history_key ON device_telemetry_history (stream, seq)",
        """CREATE TABLE quarantine (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            organization_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            source TEXT NOT NULL,
            code TEXT NOT NULL,
            reason TEXT NOT NULL,
            received_at_ms INTEGER NOT NULL,
            payload BLOB NOT NULL
        )""",
        # A cursor and, while one is under way, the attempt that it froze.
        """CREATE TABLE cursors (
            name TEXT PRIMARY KEY,
            position INTEGER NOT NULL,
            batch_id TEXT,
            after_row INTEGER,
            last_row INTEGER,
            readings INTEGER,
            body_sha256 TEXT,
            created_at_ms INTEGER
        ) WITHOUT ROWID""",
    ),
)
