package pgstore

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/store/sqlstore"
)

const mergeHealth = `INSERT INTO subscription_health AS h (` + sqlstore.HealthColumns + `)
	SELECT * FROM unnest($1::text[], $2::text[], $3::integer[], $4::bigint[], $5::bytea[], $6::timestamptz[]) ` + sqlstore.MergeHealth

// writeHealth puts what stands further than what is stored, in an order in which two recorders lock rows alike.
func writeHealth(ctx context.Context, conn *pgx.Conn, b *store.Batch) error {
	if len(b.Health) == 0 {
		return nil
	}
	slices.SortFunc(b.Health, func(x, y store.Health) int {
		return cmp.Or(strings.Compare(x.SubscriptionID, y.SubscriptionID), strings.Compare(x.Tenant, y.Tenant))
	})
	var (
		tenants, ids []string
		partitions   []int32
		next         []int64
		states       [][]byte
		updated      []time.Time
	)
	for _, h := range b.Health {
		tenants, ids = append(tenants, h.Tenant), append(ids, h.SubscriptionID)
		partitions, next = append(partitions, h.Partition), append(next, h.Next)
		states, updated = append(states, h.State), append(updated, h.UpdatedAt)
	}
	_, err := conn.Exec(ctx, mergeHealth, tenants, ids, partitions, next, states, updated)
	return err
}
