PRAGMA auto_vacuum = 0;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE devices (
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
        ) WITHOUT ROWID;
INSERT INTO "devices" VALUES('default','kitchen','','SN-1','["aa:bb:cc"]','{"room": "kitchen"}','active',NULL,1763640000000);
INSERT INTO "devices" VALUES('default','revoked','','','[]','{}','revoked',NULL,1763640000000);
CREATE TABLE mqtt_credentials (
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
        ) WITHOUT ROWID;
INSERT INTO "mqtt_credentials" VALUES('dashboard',NULL,NULL,X'D310B67AF8521104215C5DBC44CC7A8DA7866ED39AA9FD1228766CFB066648AA',NULL,0,'#',1763640000000,NULL,0,0,0);
INSERT INTO "mqtt_credentials" VALUES('default/kitchen','default','kitchen',X'3B72936D01F2514B0CB68C9294DA8F6C0BC0FB648C0656244A49DBC903356962',X'E9F494462764218778FBB5F42BDA29E0E3E855A8FA71EE9DEF58F7FF8B83C81F',86400000,'org_default/devices/kitchen/#',1763640000000,NULL,0,0,0);
INSERT INTO "mqtt_credentials" VALUES('hub','default',NULL,X'1CBCC6EA046C04BC918E2A56F5C413D61B8E834F249BD4C5A0ED5A818A635530',NULL,0,'org_default/devices/#',1763640000000,NULL,0,0,0);
CREATE TABLE mqtt_subscriptions (
            id TEXT PRIMARY KEY,
            organization_id TEXT NOT NULL,
            topics TEXT NOT NULL,
            callback_url TEXT,
            start INTEGER NOT NULL,
            created_at INTEGER NOT NULL
        ) WITHOUT ROWID;
INSERT INTO "mqtt_subscriptions" VALUES('sub_47e78960e786b39b','default','["devices/#"]','http://127.0.0.1:9/',0,1763640006000);
CREATE TABLE tokens (
            name TEXT PRIMARY KEY,
            organization_id TEXT NOT NULL,
            role TEXT NOT NULL,
            token_hash BLOB NOT NULL UNIQUE,
            created_at INTEGER NOT NULL
        ) WITHOUT ROWID;
INSERT INTO "tokens" VALUES('owner','default','owner',X'1C700504648EAD1E5B93427B4C6F292F45565B926B1BC13C6857A8672A9D2CDF',1763640000000);
COMMIT;
