-- How a subscription's receiver has fared lately, as the recorder counts it; and since when a subscription has its status. A row stands
-- at a position of the attempts topic and is only ever replaced by one that stands further, so that no attempt counts twice.

-- +goose Up
ALTER TABLE subscriptions ADD COLUMN status_since INTEGER NOT NULL DEFAULT 0;
UPDATE subscriptions SET status_since = updated_at;

CREATE TABLE subscription_health (
    tenant          TEXT NOT NULL,
    subscription_id TEXT NOT NULL,
    partition       INTEGER NOT NULL,
    next_offset     INTEGER NOT NULL,
    state           BLOB, -- JSON, the recorder's; NULL where there is nothing to remember
    updated_at      INTEGER NOT NULL,
    PRIMARY KEY (subscription_id, tenant)
);

-- +goose Down
DROP TABLE subscription_health;
ALTER TABLE subscriptions DROP COLUMN status_since;
