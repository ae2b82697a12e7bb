-- The control plane, small and whole; and the audit, in daily partitions that Maintain makes ahead and drops. Every audit table has
-- a DEFAULT partition, so that no row is refused for its date. Payloads and bodies are bytea: jsonb would refuse \u0000, drop
-- duplicate keys and rewrite numbers.

-- +goose Up
CREATE TABLE tenants (
    id              text COLLATE "C" PRIMARY KEY,
    name            text NOT NULL,
    default_profile text NOT NULL,
    created_at      timestamptz NOT NULL
);

CREATE TABLE api_keys (
    id          text COLLATE "C" PRIMARY KEY,
    tenant      text COLLATE "C" NOT NULL,
    name        text NOT NULL,
    hash        bytea NOT NULL UNIQUE,
    permissions text NOT NULL,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz,
    revoked     boolean NOT NULL
);
CREATE INDEX api_keys_newest ON api_keys (tenant, created_at, id);

CREATE TABLE secrets (
    id         text COLLATE "C" PRIMARY KEY,
    tenant     text COLLATE "C" NOT NULL,
    name       text COLLATE "C" NOT NULL,
    profile    text NOT NULL,
    versions   text NOT NULL, -- JSON; the values are sealed
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    UNIQUE (tenant, name)
);
CREATE INDEX secrets_newest ON secrets (tenant, created_at, id);

CREATE TABLE subscriptions (
    id            text COLLATE "C" PRIMARY KEY,
    tenant        text COLLATE "C" NOT NULL,
    name          text COLLATE "C" NOT NULL,
    status        text NOT NULL,
    status_reason text NOT NULL,
    endpoint_url  text NOT NULL,
    event_types   text NOT NULL, -- JSON
    filter        bytea,
    secret_ref    text NOT NULL,
    secret_id     text COLLATE "C" NOT NULL REFERENCES secrets (id),
    profile       text NOT NULL,
    ordering      text NOT NULL,
    overrides     text NOT NULL, -- JSON
    version       bigint NOT NULL,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    UNIQUE (tenant, name)
);
CREATE INDEX subscriptions_newest ON subscriptions (tenant, created_at, id);
CREATE INDEX subscriptions_secret ON subscriptions (secret_id);

CREATE TABLE outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key        text NOT NULL,
    value      bytea, -- NULL deletes
    created_at timestamptz NOT NULL
);

CREATE TABLE consumer_offsets (
    topic       text COLLATE "C" NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (topic, partition)
);

CREATE TABLE deliveries (
    created_at       timestamptz NOT NULL,
    id               uuid NOT NULL,
    tenant           text COLLATE "C" NOT NULL,
    event_id         text COLLATE "C" NOT NULL,
    event_type       text COLLATE "C" NOT NULL,
    subscription_id  text COLLATE "C" NOT NULL,
    profile          text NOT NULL,
    profile_version  bigint NOT NULL,
    generation       bigint NOT NULL,
    "trigger"        text NOT NULL,
    status           text COLLATE "C" NOT NULL,
    reason           text COLLATE "C" NOT NULL,
    updated_at       timestamptz NOT NULL,
    next_attempt_at  timestamptz,
    attempt_count    bigint NOT NULL,
    progress         bigint NOT NULL, -- how far the delivery is; rows only move to a higher one
    last_seen        bigint NOT NULL, -- which request the last response is of
    last_status_code integer NOT NULL,
    last_error       text COLLATE "C" NOT NULL,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE deliveries_default PARTITION OF deliveries DEFAULT;
-- Lists are newest first. The id decides between rows of one millisecond only, so it is not in the indexes, whose equal keys
-- then share space.
CREATE INDEX deliveries_newest ON deliveries (tenant, created_at);
CREATE INDEX deliveries_subscription ON deliveries (tenant, subscription_id, created_at);
CREATE INDEX deliveries_event_type ON deliveries (tenant, event_type, created_at);
CREATE INDEX deliveries_event ON deliveries (event_id);
CREATE INDEX deliveries_status ON deliveries (tenant, status, created_at) WHERE status <> 'DELIVERED';

CREATE TABLE attempts (
    created_at          timestamptz NOT NULL,
    id                  uuid NOT NULL,
    delivery_id         uuid NOT NULL,
    generation          bigint NOT NULL,
    tenant              text COLLATE "C" NOT NULL,
    event_id            text COLLATE "C" NOT NULL,
    event_type          text COLLATE "C" NOT NULL,
    subscription_id     text COLLATE "C" NOT NULL,
    profile             text NOT NULL,
    profile_version     bigint NOT NULL,
    "trigger"           text NOT NULL,
    delivery_created_at timestamptz NOT NULL,
    number              bigint NOT NULL,
    try                 bigint NOT NULL,
    started_at          timestamptz,
    duration_us         bigint NOT NULL,
    dns_us              bigint NOT NULL,
    connect_us          bigint NOT NULL,
    tls_us              bigint NOT NULL,
    first_byte_us       bigint NOT NULL,
    status_code         integer NOT NULL,
    error               text NOT NULL,
    response            bytea,
    request_bytes       bigint NOT NULL,
    response_bytes      bigint NOT NULL,
    status              text NOT NULL,
    reason              text NOT NULL,
    next_attempt_at     timestamptz,
    disable_subscription boolean NOT NULL,
    traceparent         text NOT NULL,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE attempts_default PARTITION OF attempts DEFAULT;
CREATE INDEX attempts_delivery ON attempts (delivery_id);

CREATE TABLE events (
    created_at       timestamptz NOT NULL,
    tenant           text COLLATE "C" NOT NULL,
    id               text COLLATE "C" NOT NULL,
    type             text NOT NULL,
    ordering_key     text NOT NULL,
    occurred_at      timestamptz,
    metadata         bytea,
    data             bytea,
    traceparent      text NOT NULL,
    tracestate       text NOT NULL,
    source_topic     text NOT NULL,
    source_partition integer NOT NULL,
    source_offset    bigint NOT NULL,
    PRIMARY KEY (id, tenant, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE events_default PARTITION OF events DEFAULT;

-- +goose Down
DROP TABLE events, attempts, deliveries, consumer_offsets, outbox, subscriptions, secrets, api_keys, tenants;
