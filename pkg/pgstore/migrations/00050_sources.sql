-- Where third parties post their webhooks to, and whose account each of them means.

-- +goose Up
CREATE TABLE sources (
    id         text COLLATE "C" PRIMARY KEY,
    tenant     text COLLATE "C" NOT NULL,
    name       text COLLATE "C" NOT NULL,
    disabled   boolean NOT NULL,
    spec       bytea NOT NULL, -- JSON
    versions   text NOT NULL, -- JSON; the values are sealed
    version    bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    UNIQUE (tenant, name)
);
CREATE INDEX sources_newest ON sources (tenant, created_at, id);

CREATE TABLE connections (
    id            text COLLATE "C" PRIMARY KEY, -- follows from tenant, aggregator and remote_id
    tenant        text COLLATE "C" NOT NULL,
    aggregator    text COLLATE "C" NOT NULL,
    remote_id     text COLLATE "C" NOT NULL,
    connection_id text COLLATE "C" NOT NULL,
    client        text COLLATE "C" NOT NULL,
    environment   text NOT NULL,
    created_at    timestamptz NOT NULL
);
CREATE INDEX connections_newest ON connections (tenant, created_at, id);
CREATE INDEX connections_connection ON connections (tenant, connection_id);

-- +goose Down
DROP TABLE connections;
DROP TABLE sources;
