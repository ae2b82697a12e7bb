-- Who changed what in the control plane, and what requests with an idempotency key were answered.

-- +goose Up
CREATE TABLE changes (
    created_at INTEGER NOT NULL,
    id         TEXT PRIMARY KEY,
    tenant     TEXT NOT NULL,
    actor_kind TEXT NOT NULL,
    actor_id   TEXT NOT NULL,
    actor_name TEXT NOT NULL,
    kind       TEXT NOT NULL,
    object_id  TEXT NOT NULL,
    action     TEXT NOT NULL,
    before     BLOB, -- JSON
    after      BLOB  -- JSON
);
CREATE INDEX changes_newest ON changes (tenant, created_at, id);
CREATE INDEX changes_object ON changes (tenant, object_id, created_at, id);

CREATE TABLE answers (
    tenant     TEXT NOT NULL,
    key        TEXT NOT NULL,
    request    BLOB NOT NULL, -- SHA-256
    run        TEXT NOT NULL,
    answer     BLOB, -- sealed; NULL while the request runs
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
);
CREATE INDEX answers_oldest ON answers (expires_at);

ALTER TABLE api_keys ADD COLUMN prefix TEXT NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE api_keys DROP COLUMN prefix;
DROP TABLE answers;
DROP TABLE changes;
