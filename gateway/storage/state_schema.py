"""Tables of `state.db`: small and precious, so apart from the log that can be damaged or rebuilt."""

_ORGANIZATION_OF = """CREATE TRIGGER {table}_organization AFTER INSERT ON {table} WHEN new.organization_id IS NOT NULL
    BEGIN
        INSERT INTO organizations (id, created_at) SELECT new.organization_id, new.created_at
            WHERE NOT EXISTS (SELECT 1 FROM organizations WHERE id = new.organization_id);
    END"""

_OF_ORGANIZATIONS = ("devices", "mqtt_credentials", "mqtt_subscriptions", "tokens")

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
        # One row a credential: a device's own, (device_id NULL) an organisation's, or (both NULL) the site's. While a
        # password is being changed, the old one is worth something for the time that is left to it.
        """CREATE TABLE mqtt_credentials (
            username TEXT PRIMARY KEY,
            organization_id TEXT,
            device_id TEXT,
            password_hash BLOB NOT NULL UNIQUE,
            old_password_hash BLOB UNIQUE,
            old_password_left_ms INTEGER NOT NULL DEFAULT 0,
            topic_prefix TEXT NOT NULL,
            created_at INTEGER NOT NULL,
            last_connected_at INTEGER,
            connections INTEGER NOT NULL DEFAULT 0,
            refused_logins INTEGER NOT NULL DEFAULT 0,
            messages_in INTEGER NOT NULL DEFAULT 0,
            CHECK (organization_id IS NOT NULL OR device_id IS NULL),
            FOREIGN KEY (organization_id, device_id) REFERENCES devices (organization_id, id) ON DELETE CASCADE
        ) WITHOUT ROWID""",
        # What the HTTP API has subscribed to. The messages are in log.db; `start` is the newest as this began.
        """CREATE TABLE mqtt_subscriptions (
            id TEXT PRIMARY KEY,
            organization_id TEXT NOT NULL,
            topics TEXT NOT NULL,
            callback_url TEXT,
            start INTEGER NOT NULL,
            created_at INTEGER NOT NULL
        ) WITHOUT ROWID""",
        """CREATE TABLE tokens (
            name TEXT PRIMARY KEY,
            organization_id TEXT NOT NULL,
            role TEXT NOT NULL,
            token_hash BLOB NOT NULL UNIQUE,
            created_at INTEGER NOT NULL
        ) WITHOUT ROWID""",
    ),
    (
        # What the owner has put into the vault, by the name that the configuration calls it: `${vault:NAME}`.
        """CREATE TABLE secrets (
            name TEXT PRIMARY KEY,
            value BLOB NOT NULL,
            created_at INTEGER NOT NULL,
            changed_at INTEGER NOT NULL
        ) WITHOUT ROWID""",
        # The key that new values are encrypted with; of one row.
        """CREATE TABLE vault (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            key_id TEXT NOT NULL
        )""",
    ),
    (
        """CREATE TABLE organizations (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL DEFAULT '',
            created_at INTEGER NOT NULL
        ) WITHOUT ROWID""",
        """INSERT INTO organizations (id, created_at)
            SELECT organization_id, min(created_at) FROM (
                SELECT organization_id, created_at FROM devices
                UNION ALL SELECT organization_id, created_at FROM mqtt_credentials
                UNION ALL SELECT organization_id, created_at FROM mqtt_subscriptions
                UNION ALL SELECT organization_id, created_at FROM tokens
            ) WHERE organization_id IS NOT NULL GROUP BY organization_id""",
        # Now a name is one of its organisation, or (organization_id NULL) of the site.
        """CREATE TABLE new_tokens (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            organization_id TEXT,
            role TEXT NOT NULL,
            token_hash BLOB NOT NULL UNIQUE,
            created_at INTEGER NOT NULL
        ) WITHOUT ROWID""",
        """INSERT INTO new_tokens
            SELECT lower(hex(randomblob(8))), name, organization_id, role, token_hash, created_at FROM tokens""",
        "DROP TABLE tokens",
        "ALTER TABLE new_tokens RENAME TO tokens",
        "CREATE UNIQUE INDEX tokens_name ON tokens (coalesce(organization_id, ''), name)",
        # Whoever is in an organisation finds it there, also one that was only heard.
        *(_ORGANIZATION_OF.format(table=table) for table in _OF_ORGANIZATIONS),
        """CREATE TABLE activity_log (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            at INTEGER NOT NULL,
            organization_id TEXT,
            actor TEXT NOT NULL,
            action TEXT NOT NULL,
            subject TEXT NOT NULL,
            before TEXT,
            after TEXT
        )""",
        "CREATE INDEX activity_log_of ON activity_log (organization_id, id)",
    ),
    (
        # The integrations that are managed over the API and the command line; those of the file are not here. Columns
        # are the documented ones. What is secret of the configuration is in the vault, as one value; `secret_names`
        # (JSON) says what there is.
        """CREATE TABLE device_integrations (
            id TEXT PRIMARY KEY,
            organization_id TEXT NOT NULL,
            integration_type TEXT NOT NULL,
            name TEXT NOT NULL,
            settings TEXT NOT NULL DEFAULT '{}',
            secrets BLOB,
            secret_names TEXT NOT NULL DEFAULT '[]',
            status TEXT NOT NULL DEFAULT 'active',
            sync_enabled INTEGER NOT NULL DEFAULT 0,
            sync_interval_seconds INTEGER NOT NULL DEFAULT 300,
            sync_direction TEXT NOT NULL DEFAULT 'bidirectional',
            conflict_resolution TEXT NOT NULL DEFAULT 'manual',
            webhook_enabled INTEGER NOT NULL DEFAULT 0,
            webhook_url TEXT,
            last_sync_at INTEGER,
            last_sync_status TEXT,
            sync_error TEXT,
            created_at INTEGER NOT NULL,
            updated_at INTEGER NOT NULL,
            UNIQUE (organization_id, name)
        ) WITHOUT ROWID""",
        _ORGANIZATION_OF.format(table="device_integrations"),
        # Removed, while log.db may still hold its place and what it has refused.
        "CREATE TABLE removed_integrations (id TEXT PRIMARY KEY) WITHOUT ROWID",
        # By its documented name: what of the activity log is about integrations.
        """CREATE VIEW integration_activity_log AS
            SELECT id, organization_id, subject AS integration_id, substr(action, length('integration.') + 1) AS action,
                actor, before, after, at AS created_at FROM activity_log WHERE action LIKE 'integration.%'""",
    ),
    (
        # What devices were told to do, and what became of it. `late` is an answer that came after the deadline.
        """CREATE TABLE commands (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            organization_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            id TEXT NOT NULL,
            method TEXT NOT NULL,
            params TEXT NOT NULL,
            actor TEXT NOT NULL,
            created_at INTEGER NOT NULL,
            deadline INTEGER NOT NULL,
            state TEXT NOT NULL,
            result TEXT,
            sent_at INTEGER,
            finished_at INTEGER,
            late TEXT,
            UNIQUE (organization_id, device_id, id)
        )""",
        "CREATE INDEX commands_of ON commands (organization_id, device_id, number)",
        # What somebody should look at; `organization_id` is NULL for what is the site's. One for each cause.
        """CREATE TABLE alerts (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            organization_id TEXT,
            kind TEXT NOT NULL,
            severity TEXT NOT NULL,
            subject TEXT NOT NULL,
            message TEXT NOT NULL,
            first_at INTEGER NOT NULL,
            last_at INTEGER NOT NULL,
            count INTEGER NOT NULL,
            state TEXT NOT NULL,
            acknowledged_by TEXT,
            resolved_at INTEGER,
            told INTEGER NOT NULL DEFAULT 0
        )""",
        """CREATE UNIQUE INDEX alerts_unresolved ON alerts (coalesce(organization_id, ''), kind, subject)
            WHERE state <> 'resolved'""",
    ),
    (
        # The outbox of notifications, and what became of each. Those of one `message_id` go, or went, together.
        """CREATE TABLE notification_log (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            organization_id TEXT NOT NULL,
            integration_id TEXT NOT NULL,
            integration_type TEXT NOT NULL,
            kind TEXT NOT NULL,
            subject TEXT NOT NULL,
            message TEXT NOT NULL,
            priority TEXT NOT NULL,
            urgency INTEGER NOT NULL,
            data TEXT NOT NULL,
            recipients TEXT NOT NULL,
            device_id TEXT,
            dedupe_key TEXT,
            repeats INTEGER NOT NULL DEFAULT 0,
            status TEXT NOT NULL DEFAULT 'pending',
            message_id TEXT,
            recipients_left TEXT,
            attempts INTEGER NOT NULL DEFAULT 0,
            retry_count INTEGER NOT NULL DEFAULT 0,
            next_attempt_at INTEGER,
            error_message TEXT NOT NULL DEFAULT '',
            metadata TEXT NOT NULL,
            created_at INTEGER NOT NULL,
            updated_at INTEGER NOT NULL,
            sent_at INTEGER,
            failed_at INTEGER
        )""",
        """CREATE INDEX notification_log_fresh ON notification_log (integration_id, urgency DESC, seq)
            WHERE status IN ('pending', 'retrying') AND message_id IS NULL""",
        """CREATE INDEX notification_log_frozen ON notification_log (integration_id, message_id)
            WHERE status IN ('pending', 'retrying') AND message_id IS NOT NULL""",
        """CREATE INDEX notification_log_waiting ON notification_log (organization_id)
            WHERE status IN ('pending', 'retrying')""",
        "CREATE INDEX notification_log_of ON notification_log (organization_id, seq)",
        "CREATE INDEX notification_log_message ON notification_log (message_id) WHERE message_id IS NOT NULL",
        """CREATE INDEX notification_log_key ON notification_log (organization_id, integration_id, dedupe_key, seq)
            WHERE dedupe_key IS NOT NULL""",
        _ORGANIZATION_OF.format(table="notification_log"),
    ),
    (
        # Where somebody has heard what a device is: there they must hear when it is no more.
        "CREATE TABLE home_assistant_topics (topic TEXT PRIMARY KEY) WITHOUT ROWID",
    ),
)
