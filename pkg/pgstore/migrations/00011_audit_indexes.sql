-- A status among the deliveries of one subscription, all of which a dead endpoint may have in another one; and what has not been
-- delivered of one event type. Without them the rare would be looked for among all the rest.

-- +goose Up
CREATE INDEX deliveries_subscription_status ON deliveries (tenant, subscription_id, status, created_at);
CREATE INDEX deliveries_event_type_status ON deliveries (tenant, event_type, status, created_at) WHERE status <> 'DELIVERED';

-- +goose Down
DROP INDEX deliveries_event_type_status, deliveries_subscription_status;
