-- Nearly all deliveries are DELIVERED and of events, and each entry of an index costs as much as the row. So no index for a status has an entry of
-- a delivered one, and none for a trigger one of an event's; a subscription's deliveries by time are in two, the delivered ones and the
-- rest, and a list of both asks each. An event's deliveries have no order: a hash of the id is enough. Large payloads are compressed in a
-- fraction of the time where the server can.

-- +goose Up
DROP INDEX deliveries_subscription, deliveries_subscription_status, deliveries_event;
CREATE INDEX deliveries_subscription ON deliveries (tenant, subscription_id, created_at) WHERE status = 'DELIVERED';
CREATE INDEX deliveries_subscription_rest ON deliveries (tenant, subscription_id, created_at) WHERE status <> 'DELIVERED';
CREATE INDEX deliveries_subscription_status ON deliveries (tenant, subscription_id, status, created_at) WHERE status <> 'DELIVERED';
CREATE INDEX deliveries_subscription_trigger ON deliveries (tenant, subscription_id, "trigger", created_at) WHERE "trigger" <> 'event';
CREATE INDEX deliveries_event ON deliveries USING hash (event_id);
-- +goose StatementBegin
DO $$ DECLARE t regclass; BEGIN
    FOR t IN SELECT relid FROM pg_partition_tree('events') LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN data SET COMPRESSION lz4', t);
    END LOOP;
EXCEPTION WHEN feature_not_supported THEN RAISE NOTICE 'lz4 is not there: %', SQLERRM;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP INDEX deliveries_subscription, deliveries_subscription_rest, deliveries_subscription_status, deliveries_subscription_trigger, deliveries_event;
CREATE INDEX deliveries_subscription ON deliveries (tenant, subscription_id, created_at);
CREATE INDEX deliveries_subscription_status ON deliveries (tenant, subscription_id, status, created_at);
CREATE INDEX deliveries_event ON deliveries (event_id);
