-- One event type among the deliveries of one subscription: either may be the rare one, and a plan for any values cannot know which.

-- +goose Up
CREATE INDEX deliveries_subscription_event_type ON deliveries (tenant, subscription_id, event_type, created_at);

-- +goose Down
DROP INDEX deliveries_subscription_event_type;
