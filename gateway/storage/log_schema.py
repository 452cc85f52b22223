"""Tables of `log.db`, the append-only side of the store."""

from gateway.storage.dead_letter_cap import size_sql as letter_size
from gateway.storage.message_cap import size_sql as message_size
from gateway.storage.quarantine_cap import size_sql as quarantine_size

_LOSSES = """(
    destination TEXT PRIMARY KEY,
    readings INTEGER NOT NULL,
    first_row INTEGER NOT NULL,
    last_row INTEGER NOT NULL,
    since_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL
) WITHOUT ROWID"""

LOG_MIGRATIONS = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        # A row keeps the gateway's boot and monotonic time, so that a clock set later can be applied on reading.
        # epoch_ms is the wall time at which that boot's monotonic clock was 0, as a synchronised clock told it last.
        # Within one boot of the machine that clock goes on when the gateway is started again: what is learned of one
        # start holds for the others. received_by_ms is for a boot whose clock was never right: when one was for the
        # first time after it. Its readings came before.
        """CREATE TABLE gateway_boots (
            id INTEGER PRIMARY KEY,
            started_at_ms INTEGER NOT NULL,
            epoch_ms INTEGER,
            machine_boot TEXT,
            received_by_ms INTEGER
        )""",
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
        # What each destination has lost for want of room, since it was first lost.
        f"CREATE TABLE losses {_LOSSES}",
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
        # What it takes, so that its cap costs no scan.
        "CREATE TABLE quarantine_kept (bytes INTEGER NOT NULL)",
        "INSERT INTO quarantine_kept VALUES (0)",
        f"""CREATE TRIGGER quarantine_added AFTER INSERT ON quarantine
            BEGIN UPDATE quarantine_kept SET bytes = bytes + {quarantine_size("new")}; END""",  # noqa: S608 - only constants
        f"""CREATE TRIGGER quarantine_gone AFTER DELETE ON quarantine
            BEGIN UPDATE quarantine_kept SET bytes = bytes - ({quarantine_size("old")}); END""",  # noqa: S608 - only constants
        # A cursor and, while one is under way, the attempt that it froze; until_row is the end of a backlog.
        """CREATE TABLE cursors (
            name TEXT PRIMARY KEY,
            position INTEGER NOT NULL,
            batch_id TEXT,
            after_row INTEGER,
            last_row INTEGER,
            readings INTEGER,
            body_sha256 TEXT,
            created_at_ms INTEGER,
            epochs TEXT,
            historical_until INTEGER,
            chosen TEXT,
            until_row INTEGER
        ) WITHOUT ROWID""",
        # What a destination refused, with all that is needed to send it again when the log no longer has it.
        """CREATE TABLE dead_letters (
            destination TEXT NOT NULL,
            row INTEGER NOT NULL,
            organization_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            boot_id TEXT NOT NULL,
            seq INTEGER,
            time_ms INTEGER NOT NULL,
            time_source INTEGER NOT NULL,
            received_at_ms INTEGER NOT NULL,
            payload BLOB NOT NULL,
            metadata TEXT,
            reason TEXT NOT NULL,
            attempts INTEGER NOT NULL,
            first_at_ms INTEGER NOT NULL,
            last_at_ms INTEGER NOT NULL,
            provisional INTEGER NOT NULL,
            replay_requested INTEGER NOT NULL DEFAULT 0,
            replay_batch TEXT,
            replay_sha256 TEXT,
            PRIMARY KEY (destination, row)
        )""",
        "CREATE INDEX dead_letters_counted ON dead_letters (destination, provisional, row)",
        "CREATE INDEX dead_letters_requested ON dead_letters (destination, row) WHERE replay_requested",
        # A damaged log that was set aside, and how far its readings have been copied (see repair/exchange.py).
        """CREATE TABLE salvages (
            id INTEGER PRIMARY KEY,
            file TEXT NOT NULL,
            reason TEXT NOT NULL,
            found_at_ms INTEGER NOT NULL,
            floor INTEGER NOT NULL,
            frontier INTEGER NOT NULL,
            rescued INTEGER NOT NULL DEFAULT 0,
            unreadable_rows INTEGER NOT NULL DEFAULT 0,
            unreadable_pages INTEGER NOT NULL DEFAULT 0,
            finished INTEGER NOT NULL
        )""",
        # What the dead letters take, so that their cap costs no scan. A REPLACE would pass by the second trigger.
        "CREATE TABLE dead_letters_kept (bytes INTEGER NOT NULL)",
        "INSERT INTO dead_letters_kept VALUES (0)",
        f"""CREATE TRIGGER dead_letter_added AFTER INSERT ON dead_letters
            BEGIN UPDATE dead_letters_kept SET bytes = bytes + {letter_size("new")}; END""",  # noqa: S608 - only constants
        f"""CREATE TRIGGER dead_letter_gone AFTER DELETE ON dead_letters
            BEGIN UPDATE dead_letters_kept SET bytes = bytes - ({letter_size("old")}); END""",  # noqa: S608 - only constants
        f"""CREATE TRIGGER dead_letter_changed AFTER UPDATE OF reason, payload, metadata ON dead_letters
            BEGIN UPDATE dead_letters_kept SET bytes = bytes + {letter_size("new")} - ({letter_size("old")}); END""",  # noqa: S608 - only constants
        """CREATE INDEX dead_letters_may_leave ON dead_letters (replay_requested)
            WHERE provisional = 0 AND replay_batch IS NULL""",
        # What has left beyond the cap, since the first did.
        f"CREATE TABLE dead_letter_losses {_LOSSES}",
        # MQTT: what the broker promised clients that are away (see mqtt_store.py). A session's number ends with it.
        """CREATE TABLE mqtt_sessions (
            id INTEGER PRIMARY KEY,
            client TEXT NOT NULL,
            namespace TEXT NOT NULL,
            left_at_ms INTEGER NOT NULL
        )""",
        """CREATE TABLE session_subscriptions (
            session INTEGER NOT NULL,
            filter TEXT NOT NULL,
            qos INTEGER NOT NULL,
            PRIMARY KEY (session, filter)
        ) WITHOUT ROWID""",
        # QoS 2 messages of clients that were taken and not yet released.
        """CREATE TABLE session_received (
            session INTEGER NOT NULL,
            packet_id INTEGER NOT NULL,
            PRIMARY KEY (session, packet_id)
        ) WITHOUT ROWID""",
        # sent: it may have been, so another time is a repetition. released: its PUBREC has come, only its end is open.
        """CREATE TABLE session_outbox (
            session INTEGER NOT NULL,
            position INTEGER NOT NULL,
            packet_id INTEGER NOT NULL,
            topic TEXT NOT NULL,
            payload BLOB NOT NULL,
            qos INTEGER NOT NULL,
            retain INTEGER NOT NULL,
            queued_at_ms INTEGER NOT NULL,
            sent INTEGER NOT NULL,
            released INTEGER NOT NULL,
            PRIMARY KEY (session, position)
        )""",
        """CREATE TABLE retained_messages (
            topic TEXT PRIMARY KEY,
            payload BLOB NOT NULL,
            qos INTEGER NOT NULL
        )""",
        # The highest id of a message that was given: none is given twice. It is copied before the messages, too.
        "CREATE TABLE mqtt_message_ids (one INTEGER PRIMARY KEY, newest INTEGER NOT NULL)",
        # What subscriptions of the HTTP API have heard, and how far each callback has got, with the batch that may
        # be on its way (see mqtt_messages.py).
        """CREATE TABLE mqtt_messages (
            id INTEGER PRIMARY KEY,
            organization_id TEXT NOT NULL,
            topic TEXT NOT NULL,
            payload BLOB NOT NULL,
            qos INTEGER NOT NULL,
            retain INTEGER NOT NULL,
            received_at_ms INTEGER NOT NULL
        )""",
        """CREATE TABLE mqtt_callbacks (
            subscription TEXT PRIMARY KEY,
            position INTEGER NOT NULL,
            batch_id TEXT,
            after INTEGER NOT NULL,
            until INTEGER NOT NULL,
            messages INTEGER NOT NULL
        ) WITHOUT ROWID""",
        # What they take, so that their cap costs no scan, and up to where some have left for want of room.
        """CREATE TABLE mqtt_messages_kept (
            organization_id TEXT PRIMARY KEY,
            messages INTEGER NOT NULL,
            bytes INTEGER NOT NULL,
            left_until INTEGER NOT NULL DEFAULT 0
        ) WITHOUT ROWID""",
        f"""CREATE TRIGGER mqtt_message_added AFTER INSERT ON mqtt_messages BEGIN
            INSERT INTO mqtt_messages_kept VALUES (new.organization_id, 1, {message_size("new")}, 0)
                ON CONFLICT DO UPDATE SET messages = messages + 1, bytes = bytes + excluded.bytes;
            INSERT INTO mqtt_message_ids VALUES (1, new.id)
                ON CONFLICT DO UPDATE SET newest = max(newest, excluded.newest);
        END""",  # noqa: S608 - only constants
        f"""CREATE TRIGGER mqtt_message_gone AFTER DELETE ON mqtt_messages BEGIN
            UPDATE mqtt_messages_kept SET messages = messages - 1, bytes = bytes - ({message_size("old")})
                WHERE organization_id = old.organization_id;
        END""",  # noqa: S608 - only constants
    ),
    (
        # Texts that no row beyond that one uses (see unused_metadata.py). A column of the texts themselves would keep
        # a lost one from being found in the index of its unique key (see repair/wreck.py). A checkout had it in the
        # first step for some hours.
        "CREATE TABLE IF NOT EXISTS device_metadata_unused (metadata INTEGER PRIMARY KEY, last_row INTEGER NOT NULL)",
    ),
)
