-- Replays, and the ways in which stored events are found: by where they stand in Kafka, and in the order in which they were recorded.

-- +goose Up
CREATE TABLE replays (
    created_at      INTEGER NOT NULL,
    id              TEXT PRIMARY KEY,
    tenant          TEXT NOT NULL,
    subscription_id TEXT NOT NULL,
    spec            TEXT NOT NULL, -- JSON
    rate            REAL NOT NULL,
    state           TEXT NOT NULL,
    reason          TEXT NOT NULL,
    total           INTEGER NOT NULL,
    done            INTEGER NOT NULL,
    matched         INTEGER NOT NULL,
    cursor_at       INTEGER,
    cursor_id       TEXT NOT NULL,
    plan            TEXT, -- JSON; NULL between chunks
    created_by      TEXT NOT NULL,
    updated_at      INTEGER NOT NULL,
    finished_at     INTEGER,
    lease_owner     TEXT,
    lease_until     INTEGER
);
CREATE INDEX replays_newest ON replays (tenant, created_at, id);
CREATE INDEX replays_running ON replays (created_at, id) WHERE state = 'running';

CREATE INDEX events_newest ON events (tenant, created_at, id);
CREATE INDEX events_source ON events (source_partition, source_offset);

-- +goose Down
DROP INDEX events_source;
DROP INDEX events_newest;
DROP TABLE replays;
