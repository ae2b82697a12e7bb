-- Who changed what in the control plane, and what requests with an idempotency key were answered.

-- +goose Up
CREATE TABLE changes (
    created_at timestamptz NOT NULL,
    id         text COLLATE "C" PRIMARY KEY,
    tenant     text COLLATE "C" NOT NULL,
    actor_kind text NOT NULL,
    actor_id   text NOT NULL,
    actor_name text NOT NULL,
    kind       text NOT NULL,
    object_id  text COLLATE "C" NOT NULL,
    action     text NOT NULL,
    before     bytea, -- JSON
    after      bytea  -- JSON
);
CREATE INDEX changes_newest ON changes (tenant, created_at, id);
CREATE INDEX changes_object ON changes (tenant, object_id, created_at, id);

CREATE TABLE answers (
    tenant     text COLLATE "C" NOT NULL,
    key        text COLLATE "C" NOT NULL,
    request    bytea NOT NULL, -- SHA-256
    run        text NOT NULL,
    answer     bytea, -- sealed; NULL while the request runs
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, key)
);
CREATE INDEX answers_oldest ON answers (expires_at);

ALTER TABLE api_keys ADD COLUMN prefix text NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE api_keys DROP COLUMN prefix;
DROP TABLE answers;
DROP TABLE changes;
