-- Replays, and the ways in which stored events are found: by where they stand in Kafka, and in the order in which they were recorded.

-- +goose Up
CREATE TABLE replays (
    created_at      timestamptz NOT NULL,
    id              text COLLATE "C" PRIMARY KEY,
    tenant          text COLLATE "C" NOT NULL,
    subscription_id text COLLATE "C" NOT NULL,
    spec            text NOT NULL, -- JSON
    rate            double precision NOT NULL,
    state           text COLLATE "C" NOT NULL,
    reason          text NOT NULL,
    total           bigint NOT NULL,
    done            bigint NOT NULL,
    matched         bigint NOT NULL,
    cursor_at       timestamptz,
    cursor_id       text COLLATE "C" NOT NULL,
    plan            text, -- JSON; NULL between chunks
    created_by      text NOT NULL,
    updated_at      timestamptz NOT NULL,
    finished_at     timestamptz,
    lease_owner     text,
    lease_until     timestamptz
);
CREATE INDEX replays_newest ON replays (tenant, created_at, id);
CREATE INDEX replays_running ON replays (created_at, id) WHERE state = 'running';

CREATE INDEX events_newest ON events (tenant, created_at, id);
CREATE INDEX events_source ON events (source_partition, source_offset);

-- +goose Down
DROP INDEX events_source;
DROP INDEX events_newest;
DROP TABLE replays;
