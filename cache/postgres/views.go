package postgres

import (
	"time"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/cache/kv/postgres"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// What people see of the store: columns beside the records, and views of them, whose
// names and columns stay as they are. The records alone decide.

func text(name string) postgres.Column { return postgres.Column{Name: name, Type: "text"} }

func moment(name string) postgres.Column { return postgres.Column{Name: name, Type: "timestamptz"} }

func boolean(name string) postgres.Column { return postgres.Column{Name: name, Type: "boolean"} }

func indexed(c postgres.Column) postgres.Column {
	c.Indexed = true
	return c
}

var columns = map[string]postgres.Columns{
	"customers": {
		List: []postgres.Column{indexed(text("id")), text("external_id"), moment("modified_at"), moment("deleted_at")},
		Of: of("customers", func(v entitlement.Customer) []any {
			return []any{v.ID, orNull(v.ExternalID), when(v.Version.Row), when(v.DeletedAt)}
		}),
	},
	"subscriptions": {
		List: []postgres.Column{
			indexed(text("id")), text("customer_id"), text("product_id"), text("status"), moment("current_period_start"), moment("current_period_end"),
			moment("trial_end"), boolean("cancel_at_period_end"), moment("canceled_at"), moment("ends_at"), moment("ended_at"),
			moment("past_due_at"),
			{Name: "seats", Type: "bigint"},
			moment("modified_at"),
		},
		Of: of("subscriptions", func(v entitlement.Subscription) []any {
			var seats any
			if v.Seats {
				seats = int64(v.SeatCount)
			}
			return []any{
				v.ID, v.CustomerID, v.ProductID, string(v.Status), when(v.PeriodStart), when(v.PeriodEnd),
				when(v.TrialEnd), v.CancelAtPeriodEnd, when(v.CanceledAt), when(v.EndsAt), when(v.EndedAt),
				when(v.PastDueAt), seats, when(v.Version.Row),
			}
		}),
	},
	"by_user": {
		List: []postgres.Column{indexed(text("user_id")), text("kind"), indexed(text("object_id"))},
		Of: of("by_user", func(v cache.IndexEntry) []any {
			return []any{v.User, v.Kind, v.ID}
		}),
	},
	"stages": {
		List: []postgres.Column{indexed(text("user_id")), text("plan"), text("reason"), moment("since"), moment("until")},
		Of: of("stages", func(v cache.Stage) []any {
			return []any{v.User, v.Plan, v.Reason, when(v.From), when(v.Until)}
		}),
	},
}

// views are by name. {table} is one of the store's.
var views = map[string]string{
	"customers": `SELECT c.id, c.external_id, u.user_id, c.modified_at, c.deleted_at
		FROM {customers} c LEFT JOIN {by_user} u ON u.object_id = c.id AND u.kind = 'customer'`,
	"subscriptions": `SELECT s.id, u.user_id, s.customer_id, s.product_id, s.status, s.current_period_start, s.current_period_end,
		s.trial_end, s.cancel_at_period_end, s.canceled_at, s.ends_at, s.ended_at, s.past_due_at, s.seats, s.modified_at
		FROM {subscriptions} s LEFT JOIN {by_user} u ON u.object_id = s.id AND u.kind = 'subscription'`,
	"entitlements": `SELECT now.user_id, now.plan,
		(SELECT max(coalesce(later.until, 'infinity')) FROM {stages} later WHERE later.user_id = now.user_id AND later.plan = now.plan) AS allowed_until,
		now.reason
		FROM {stages} now WHERE coalesce(now.since, '-infinity') <= current_timestamp AND current_timestamp < coalesce(now.until, 'infinity')`,
}

// of are the columns of one kind of record. Of one that cannot be read nothing is shown.
func of[T any](bucket string, values func(T) []any) func(key string, value []byte) []any {
	return func(key string, value []byte) []any {
		v, err := cache.Decode(bucket, key, value)
		if object, ok := v.(T); ok && err == nil {
			return values(object)
		}
		return nil
	}
}

func when(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}
