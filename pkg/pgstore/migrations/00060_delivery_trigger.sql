-- Tests, redeliveries and replays among the deliveries, nearly all of which events have caused.

-- +goose Up
CREATE INDEX deliveries_trigger ON deliveries (tenant, "trigger", created_at) WHERE "trigger" <> 'event';

-- +goose Down
DROP INDEX deliveries_trigger;
