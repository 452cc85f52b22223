PRAGMA auto_vacuum = 2;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE cursors (
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
        ) WITHOUT ROWID;
INSERT INTO "cursors" VALUES('building',3,'msg_frozen',3,6,3,'00',1763640006000,'{}',0,NULL,NULL);
CREATE TABLE dead_letter_losses (
    destination TEXT PRIMARY KEY,
    readings INTEGER NOT NULL,
    first_row INTEGER NOT NULL,
    last_row INTEGER NOT NULL,
    since_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "dead_letter_losses" VALUES('archive',1,1,1,1763640000000,1763640000000);
CREATE TABLE dead_letters (
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
        );
INSERT INTO "dead_letters" VALUES('building',2,'default','kitchen','b',2,1763640000002,0,1763640002000,X'7B226465766963655F6964223A226B69746368656E222C22626F6F745F6964223A2262222C22736571223A322C2273656E736F7273223A7B22706972223A7B2270756C736573223A327D7D7D','{"room":"kitchen"}','422: what is this?',1,1763640006000,1763640006000,0,0,NULL,NULL);
CREATE TABLE dead_letters_kept (bytes INTEGER NOT NULL);
INSERT INTO "dead_letters_kept" VALUES(412);
CREATE TABLE device_metadata (id INTEGER PRIMARY KEY, json TEXT NOT NULL UNIQUE);
INSERT INTO "device_metadata" VALUES(1,'{"room":"kitchen"}');
CREATE TABLE device_telemetry_history (
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
        );
INSERT INTO "device_telemetry_history" VALUES(1,1,1,1763640000001,0,1763640001000,1,1000,1,X'7B226465766963655F6964223A20226B69746368656E222C2022626F6F745F6964223A202262222C2022736571223A20312C202273656E736F7273223A207B22706972223A207B2270756C736573223A20317D7D7D',X'61732069742063616D65');
INSERT INTO "device_telemetry_history" VALUES(2,1,2,1763640000002,0,1763640002000,1,2000,1,X'7B226465766963655F6964223A20226B69746368656E222C2022626F6F745F6964223A202262222C2022736571223A20322C202273656E736F7273223A207B22706972223A207B2270756C736573223A20327D7D7D',NULL);
INSERT INTO "device_telemetry_history" VALUES(3,1,3,1763640000003,0,1763640003000,1,3000,1,X'7B226465766963655F6964223A20226B69746368656E222C2022626F6F745F6964223A202262222C2022736571223A20332C202273656E736F7273223A207B22706972223A207B2270756C736573223A20337D7D7D',NULL);
INSERT INTO "device_telemetry_history" VALUES(4,1,4,1763640000004,0,1763640004000,1,4000,1,X'7B226465766963655F6964223A20226B69746368656E222C2022626F6F745F6964223A202262222C2022736571223A20342C202273656E736F7273223A207B22706972223A207B2270756C736573223A20347D7D7D',NULL);
INSERT INTO "device_telemetry_history" VALUES(5,1,5,1763640000005,0,1763640005000,1,5000,1,X'7B226465766963655F6964223A20226B69746368656E222C2022626F6F745F6964223A202262222C2022736571223A20352C202273656E736F7273223A207B22706972223A207B2270756C736573223A20357D7D7D',NULL);
INSERT INTO "device_telemetry_history" VALUES(6,1,6,1763640000006,0,1763640006000,1,6000,1,X'7B226465766963655F6964223A20226B69746368656E222C2022626F6F745F6964223A202262222C2022736571223A20362C202273656E736F7273223A207B22706972223A207B2270756C736573223A20367D7D7D',NULL);
CREATE TABLE gateway_boots (
            id INTEGER PRIMARY KEY,
            started_at_ms INTEGER NOT NULL,
            epoch_ms INTEGER,
            machine_boot TEXT,
            received_by_ms INTEGER
        );
INSERT INTO "gateway_boots" VALUES(1,1763640000000,1763640000000,NULL,NULL);
CREATE TABLE losses (
    destination TEXT PRIMARY KEY,
    readings INTEGER NOT NULL,
    first_row INTEGER NOT NULL,
    last_row INTEGER NOT NULL,
    since_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "losses" VALUES('archive',3,1,3,1763640000000,1763640000000);
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "meta" VALUES('log_uuid','d4960ef670474191a222ce7a687fd388');
CREATE TABLE mqtt_callbacks (
            subscription TEXT PRIMARY KEY,
            position INTEGER NOT NULL,
            batch_id TEXT,
            after INTEGER NOT NULL,
            until INTEGER NOT NULL,
            messages INTEGER NOT NULL
        ) WITHOUT ROWID;
INSERT INTO "mqtt_callbacks" VALUES('sub_47e78960e786b39b',0,'msg_1',0,1,1);
CREATE TABLE mqtt_message_ids (one INTEGER PRIMARY KEY, newest INTEGER NOT NULL);
INSERT INTO "mqtt_message_ids" VALUES(1,1);
CREATE TABLE mqtt_messages (
            id INTEGER PRIMARY KEY,
            organization_id TEXT NOT NULL,
            topic TEXT NOT NULL,
            payload BLOB NOT NULL,
            qos INTEGER NOT NULL,
            retain INTEGER NOT NULL,
            received_at_ms INTEGER NOT NULL
        );
INSERT INTO "mqtt_messages" VALUES(1,'default','devices/kitchen/status',X'7B226F6E223A20747275657D',1,0,1763640006000);
CREATE TABLE mqtt_messages_kept (
            organization_id TEXT PRIMARY KEY,
            messages INTEGER NOT NULL,
            bytes INTEGER NOT NULL,
            left_until INTEGER NOT NULL DEFAULT 0
        ) WITHOUT ROWID;
INSERT INTO "mqtt_messages_kept" VALUES('default',1,134,0);
CREATE TABLE mqtt_sessions (
            id INTEGER PRIMARY KEY,
            client TEXT NOT NULL,
            namespace TEXT NOT NULL,
            left_at_ms INTEGER NOT NULL
        );
INSERT INTO "mqtt_sessions" VALUES(1,'hub|panel','default/',1763640000000);
CREATE TABLE quarantine (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            organization_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            source TEXT NOT NULL,
            code TEXT NOT NULL,
            reason TEXT NOT NULL,
            received_at_ms INTEGER NOT NULL,
            payload BLOB NOT NULL
        );
INSERT INTO "quarantine" VALUES(1,'default','kitchen','http','not_json','No JSON.',1763640006000,X'7B');
CREATE TABLE quarantine_kept (bytes INTEGER NOT NULL);
INSERT INTO "quarantine_kept" VALUES(201);
CREATE TABLE retained_messages (
            topic TEXT PRIMARY KEY,
            payload BLOB NOT NULL,
            qos INTEGER NOT NULL
        );
INSERT INTO "retained_messages" VALUES('default/devices/kitchen/status',X'72657461696E6564',1);
CREATE TABLE salvages (
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
        );
INSERT INTO "salvages" VALUES(1,'log.db.corrupt-20251120T120000Z','page 7 is damaged',1763640000000,0,0,5,1,1,1);
CREATE TABLE session_outbox (
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
        );
INSERT INTO "session_outbox" VALUES(1,1,1,'default/devices/kitchen/status',X'7761697473',1,0,1763640000000,0,0);
CREATE TABLE session_received (
            session INTEGER NOT NULL,
            packet_id INTEGER NOT NULL,
            PRIMARY KEY (session, packet_id)
        ) WITHOUT ROWID;
INSERT INTO "session_received" VALUES(1,7);
CREATE TABLE session_subscriptions (
            session INTEGER NOT NULL,
            filter TEXT NOT NULL,
            qos INTEGER NOT NULL,
            PRIMARY KEY (session, filter)
        ) WITHOUT ROWID;
INSERT INTO "session_subscriptions" VALUES(1,'default/devices/#',1);
CREATE TABLE streams (
            id INTEGER PRIMARY KEY,
            organization_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            boot_id TEXT NOT NULL,
            UNIQUE (organization_id, device_id, boot_id)
        );
INSERT INTO "streams" VALUES(1,'default','kitchen','b');
CREATE UNIQUE INDEX device_telemetry_history_key ON device_telemetry_history (stream, seq);
CREATE TRIGGER quarantine_added AFTER INSERT ON quarantine
            BEGIN UPDATE quarantine_kept SET bytes = bytes + length(new.payload) + 200; END;
CREATE TRIGGER quarantine_gone AFTER DELETE ON quarantine
            BEGIN UPDATE quarantine_kept SET bytes = bytes - (length(old.payload) + 200); END;
CREATE INDEX dead_letters_counted ON dead_letters (destination, provisional, row);
CREATE INDEX dead_letters_requested ON dead_letters (destination, row) WHERE replay_requested;
CREATE TRIGGER dead_letter_added AFTER INSERT ON dead_letters
            BEGIN UPDATE dead_letters_kept SET bytes = bytes + length(new.payload) + length(CAST(new.reason AS BLOB)) + coalesce(length(CAST(new.metadata AS BLOB)), 0) + 300; END;
CREATE TRIGGER dead_letter_gone AFTER DELETE ON dead_letters
            BEGIN UPDATE dead_letters_kept SET bytes = bytes - (length(old.payload) + length(CAST(old.reason AS BLOB)) + coalesce(length(CAST(old.metadata AS BLOB)), 0) + 300); END;
CREATE TRIGGER dead_letter_changed AFTER UPDATE OF reason, payload, metadata ON dead_letters
            BEGIN UPDATE dead_letters_kept SET bytes = bytes + length(new.payload) + length(CAST(new.reason AS BLOB)) + coalesce(length(CAST(new.metadata AS BLOB)), 0) + 300 - (length(old.payload) + length(CAST(old.reason AS BLOB)) + coalesce(length(CAST(old.metadata AS BLOB)), 0) + 300); END;
CREATE INDEX dead_letters_may_leave ON dead_letters (replay_requested)
            WHERE provisional = 0 AND replay_batch IS NULL;
CREATE TRIGGER mqtt_message_added AFTER INSERT ON mqtt_messages BEGIN
            INSERT INTO mqtt_messages_kept VALUES (new.organization_id, 1, length(new.topic) + length(new.payload) + 100, 0)
                ON CONFLICT DO UPDATE SET messages = messages + 1, bytes = bytes + excluded.bytes;
            INSERT INTO mqtt_message_ids VALUES (1, new.id)
                ON CONFLICT DO UPDATE SET newest = max(newest, excluded.newest);
        END;
CREATE TRIGGER mqtt_message_gone AFTER DELETE ON mqtt_messages BEGIN
            UPDATE mqtt_messages_kept SET messages = messages - 1, bytes = bytes - (length(old.topic) + length(old.payload) + 100)
                WHERE organization_id = old.organization_id;
        END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('device_telemetry_history',6);
INSERT INTO "sqlite_sequence" VALUES('quarantine',1);
COMMIT;
