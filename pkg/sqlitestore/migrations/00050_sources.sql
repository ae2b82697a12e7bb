-- Where third parties post their webhooks to, and whose account each of them means.

-- +goose Up
CREATE TABLE sources (
    id         TEXT PRIMARY KEY,
    tenant     TEXT NOT NULL,
    name       TEXT NOT NULL,
    disabled   INTEGER NOT NULL,
    spec       BLOB NOT NULL, -- JSON
    versions   TEXT NOT NULL, -- JSON; the values are sealed
    version    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (tenant, name)
);
CREATE INDEX sources_newest ON sources (tenant, created_at, id);

CREATE TABLE connections (
    id            TEXT PRIMARY KEY, -- follows from tenant, aggregator and remote_id
    tenant        TEXT NOT NULL,
    aggregator    TEXT NOT NULL,
    remote_id     TEXT NOT NULL,
    connection_id TEXT NOT NULL,
    client        TEXT NOT NULL,
    environment   TEXT NOT NULL,
    created_at    INTEGER NOT NULL
);
CREATE INDEX connections_newest ON connections (tenant, created_at, id);
CREATE INDEX connections_connection ON connections (tenant, connection_id);

-- +goose Down
DROP TABLE connections;
DROP TABLE sources;
