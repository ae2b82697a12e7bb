-- How a subscription's receiver has fared lately, as the recorder counts it; and since when a subscription has its status. A row stands
-- at a position of the attempts topic and is only ever replaced by one that stands further, so that no attempt counts twice.

-- +goose Up
ALTER TABLE subscriptions ADD COLUMN status_since timestamptz;
UPDATE subscriptions SET status_since = updated_at;
ALTER TABLE subscriptions ALTER COLUMN status_since SET NOT NULL;

CREATE TABLE subscription_health (
    tenant          text COLLATE "C" NOT NULL,
    subscription_id text COLLATE "C" NOT NULL,
    partition       integer NOT NULL,
    next_offset     bigint NOT NULL,
    state           bytea, -- JSON, the recorder's; NULL where there is nothing to remember
    updated_at      timestamptz NOT NULL,
    PRIMARY KEY (subscription_id, tenant)
);

-- +goose Down
DROP TABLE subscription_health;
ALTER TABLE subscriptions DROP COLUMN status_since;
