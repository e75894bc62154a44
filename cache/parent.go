package cache

import (
	bolt "go.etcd.io/bbolt"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// HoldsParent says whether the subscription or order of a grant is held.
func (s *Store) HoldsParent(g *entitlement.Grant) (held bool, err error) {
	err = s.read(func(tx *bolt.Tx) error {
		held = g.SubscriptionID != "" && tx.Bucket(bucketSubscriptions).Get([]byte(g.SubscriptionID)) != nil ||
			g.OrderID != "" && tx.Bucket(bucketOrders).Get([]byte(g.OrderID)) != nil
		return nil
	})
	return held, err
}
