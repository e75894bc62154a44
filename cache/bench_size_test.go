package cache

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// BenchmarkSize is how many bytes of the file each user takes, and which buckets have
// them, if 64 changes at a time are committed: of webhooks, one for each user as bench
// -scale tells it, the seven of a purchase, or one with audit off; or of a first sync.
func BenchmarkSize(b *testing.B) {
	for name, c := range map[string]struct {
		told  func(i int) []*Facts
		audit time.Duration
	}{
		"one":      {toldOnce, monthOfAudit},
		"purchase": {toldPurchase, monthOfAudit},
		"off":      {toldOnce, 0},
		"sync":     {toldBySync, monthOfAudit},
	} {
		b.Run(name, func(b *testing.B) {
			users := envInt(b, "CACHE_USERS", 5000)
			for b.Loop() {
				s := claimed(b, filepath.Join(b.TempDir(), "polar.db"))
				db := s.file().db.Load()
				db.NoSync = true
				var some []*change
				for i := range users {
					for n, f := range c.told(i) {
						f.Organization, f.At, f.Audit = testOwner.Organization, time.Now(), c.audit
						if !f.Filling {
							f.Source = Source{SourceWebhook, benchID(fmt.Sprint("webhook", n, "-"), i)}
						}
						some = append(some, &change{facts: f})
					}
					if len(some) < 64 && i < users-1 {
						continue
					}
					if s.commit(some); some[0].err != nil {
						b.Fatal(some[0].err)
					}
					some = some[:0]
				}
				reportSize(b, s, users)
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func reportSize(b *testing.B, s *Store, users int) {
	b.Helper()
	b.ReportMetric(float64(must(os.Stat(s.Path())).Size())/float64(users), "file-B/user")
	b.ReportMetric(float64(s.file().db.Load().Stats().FreePageN)*4096/float64(users), "free-B/user")
	err := s.file().db.Load().View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, bucket *bolt.Bucket) error {
			v := bucket.Stats()
			if bytes := v.LeafAlloc + v.BranchAlloc; bytes > users {
				b.ReportMetric(float64(bytes)/float64(users), string(name)+"-B/user")
				b.ReportMetric(100*float64(v.LeafInuse+v.BranchInuse)/float64(bytes), string(name)+"-fill-%")
			}
			return nil
		})
	})
	if err != nil {
		b.Fatal(err)
	}
}

// toldOnce is an active subscription, with its customer's name.
func toldOnce(i int) []*Facts {
	f := benchPurchase(i, testOrigin)
	return []*Facts{{Names: []Name{{f.Customers[0].ID, f.Customers[0].ExternalID}}, Subscriptions: f.Subscriptions}}
}

// toldBySync is the same as a first sync reads it.
func toldBySync(i int) []*Facts {
	f := benchPurchase(i, testOrigin)
	f.Source, f.Sweep, f.Filling = Source{Kind: SourceSync}, true, true
	return []*Facts{f}
}

// toldPurchase is what Polar tells of a first purchase.
func toldPurchase(i int) []*Facts {
	f := benchPurchase(i, testOrigin)
	c, s := f.Customers[0], f.Subscriptions[0]
	later := func(n int) entitlement.Version {
		at := testOrigin.Add(time.Duration(n) * time.Second)
		return entitlement.Version{Row: at, AsOf: at}
	}
	names := []Name{{c.ID, c.ExternalID}}
	pending, paid := s, s
	pending.Status, pending.Version, paid.Version = entitlement.StatusIncomplete, later(1), later(3)
	order := entitlement.Order{
		Version: later(2), ID: benchID("order", i), CustomerID: c.ID, ProductID: s.ProductID, SubscriptionID: s.ID, CheckoutID: s.CheckoutID,
		Status: "pending",
	}
	orderPaid, updated := order, c
	orderPaid.Version, orderPaid.Status, updated.Version = later(3), entitlement.OrderPaid, later(4)
	return []*Facts{
		{Customers: []entitlement.Customer{c}},
		{Names: names, Subscriptions: []entitlement.Subscription{pending}},
		{Names: names, Orders: []entitlement.Order{order}},
		{Names: names, Subscriptions: []entitlement.Subscription{paid}},
		{Names: names, Orders: []entitlement.Order{orderPaid}},
		{Customers: []entitlement.Customer{updated}},
		{Names: names, Grants: []entitlement.Grant{{
			Version: later(4), ID: benchID("grant", i), CustomerID: c.ID, BenefitID: benchID("benefit", 0), SubscriptionID: s.ID, Granted: true,
		}}},
	}
}
