-- The schema of pgstore without what SQLite has no need of: no partitions, old rows are deleted; times are microseconds since
-- 1970, ids are 16 bytes.

-- +goose Up
CREATE TABLE tenants (
    id              TEXT PRIMARY KEY,
    name            TEXT NOT NULL,
    default_profile TEXT NOT NULL,
    created_at      INTEGER NOT NULL
);

CREATE TABLE api_keys (
    id          TEXT PRIMARY KEY,
    tenant      TEXT NOT NULL,
    name        TEXT NOT NULL,
    hash        BLOB NOT NULL UNIQUE,
    permissions TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    revoked     INTEGER NOT NULL
);
CREATE INDEX api_keys_newest ON api_keys (tenant, created_at, id);

CREATE TABLE secrets (
    id         TEXT PRIMARY KEY,
    tenant     TEXT NOT NULL,
    name       TEXT NOT NULL,
    profile    TEXT NOT NULL,
    versions   TEXT NOT NULL, -- JSON; the values are sealed
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (tenant, name)
);
CREATE INDEX secrets_newest ON secrets (tenant, created_at, id);

CREATE TABLE subscriptions (
    id            TEXT PRIMARY KEY,
    tenant        TEXT NOT NULL,
    name          TEXT NOT NULL,
    status        TEXT NOT NULL,
    status_reason TEXT NOT NULL,
    endpoint_url  TEXT NOT NULL,
    event_types   TEXT NOT NULL, -- JSON
    filter        BLOB,
    secret_ref    TEXT NOT NULL,
    secret_id     TEXT NOT NULL REFERENCES secrets (id),
    profile       TEXT NOT NULL,
    ordering      TEXT NOT NULL,
    overrides     TEXT NOT NULL, -- JSON
    version       INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    UNIQUE (tenant, name)
);
CREATE INDEX subscriptions_newest ON subscriptions (tenant, created_at, id);
CREATE INDEX subscriptions_secret ON subscriptions (secret_id);

CREATE TABLE outbox (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    key        TEXT NOT NULL,
    value      BLOB, -- NULL deletes
    created_at INTEGER NOT NULL
);

CREATE TABLE consumer_offsets (
    topic       TEXT NOT NULL,
    partition   INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
);

CREATE TABLE deliveries (
    created_at       INTEGER NOT NULL,
    id               BLOB NOT NULL,
    tenant           TEXT NOT NULL,
    event_id         TEXT NOT NULL,
    event_type       TEXT NOT NULL,
    subscription_id  TEXT NOT NULL,
    profile          TEXT NOT NULL,
    profile_version  INTEGER NOT NULL,
    generation       INTEGER NOT NULL,
    "trigger"        TEXT NOT NULL,
    status           TEXT NOT NULL,
    reason           TEXT NOT NULL,
    updated_at       INTEGER NOT NULL,
    next_attempt_at  INTEGER,
    attempt_count    INTEGER NOT NULL,
    progress         INTEGER NOT NULL, -- how far the delivery is; rows only move to a higher one
    last_seen        INTEGER NOT NULL, -- which request the last response is of
    last_status_code INTEGER NOT NULL,
    last_error       TEXT NOT NULL,
    PRIMARY KEY (id, created_at)
);
CREATE INDEX deliveries_oldest ON deliveries (created_at);
CREATE INDEX deliveries_newest ON deliveries (tenant, created_at, id);
CREATE INDEX deliveries_subscription ON deliveries (tenant, subscription_id, created_at, id);
CREATE INDEX deliveries_event_type ON deliveries (tenant, event_type, created_at, id);
CREATE INDEX deliveries_event ON deliveries (event_id);
CREATE INDEX deliveries_status ON deliveries (tenant, status, created_at, id) WHERE status <> 'DELIVERED';

CREATE TABLE attempts (
    created_at          INTEGER NOT NULL,
    id                  BLOB NOT NULL,
    delivery_id         BLOB NOT NULL,
    generation          INTEGER NOT NULL,
    tenant              TEXT NOT NULL,
    event_id            TEXT NOT NULL,
    event_type          TEXT NOT NULL,
    subscription_id     TEXT NOT NULL,
    profile             TEXT NOT NULL,
    profile_version     INTEGER NOT NULL,
    "trigger"           TEXT NOT NULL,
    delivery_created_at INTEGER NOT NULL,
    number              INTEGER NOT NULL,
    try                 INTEGER NOT NULL,
    started_at          INTEGER,
    duration_us         INTEGER NOT NULL,
    dns_us              INTEGER NOT NULL,
    connect_us          INTEGER NOT NULL,
    tls_us              INTEGER NOT NULL,
    first_byte_us       INTEGER NOT NULL,
    status_code         INTEGER NOT NULL,
    error               TEXT NOT NULL,
    response            BLOB,
    request_bytes       INTEGER NOT NULL,
    response_bytes      INTEGER NOT NULL,
    status              TEXT NOT NULL,
    reason              TEXT NOT NULL,
    next_attempt_at     INTEGER,
    disable_subscription INTEGER NOT NULL,
    traceparent         TEXT NOT NULL,
    PRIMARY KEY (id, created_at)
);
CREATE INDEX attempts_oldest ON attempts (created_at);
CREATE INDEX attempts_delivery ON attempts (delivery_id);

CREATE TABLE events (
    created_at       INTEGER NOT NULL,
    tenant           TEXT NOT NULL,
    id               TEXT NOT NULL,
    type             TEXT NOT NULL,
    ordering_key     TEXT NOT NULL,
    occurred_at      INTEGER,
    metadata         BLOB,
    data             BLOB,
    traceparent      TEXT NOT NULL,
    tracestate       TEXT NOT NULL,
    source_topic     TEXT NOT NULL,
    source_partition INTEGER NOT NULL,
    source_offset    INTEGER NOT NULL,
    PRIMARY KEY (id, tenant, created_at)
);
CREATE INDEX events_oldest ON events (created_at);

-- +goose Down
DROP TABLE events;
DROP TABLE attempts;
DROP TABLE deliveries;
DROP TABLE consumer_offsets;
DROP TABLE outbox;
DROP TABLE subscriptions;
DROP TABLE secrets;
DROP TABLE api_keys;
DROP TABLE tenants;
