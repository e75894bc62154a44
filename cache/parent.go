package cache

import (
	"github.com/caddy-polar/caddy-polar/cache/kv"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// HoldsParent says whether the subscription or order of a grant or seat is held.
func (s *Store) HoldsParent(subscription, order string) (held bool, err error) {
	err = s.read(func(tx kv.Tx) error {
		held = subscription != "" && tx.Bucket(bucketSubscriptions).Get(subscription) != nil ||
			order != "" && tx.Bucket(bucketOrders).Get(order) != nil
		return nil
	})
	return held, err
}

// SeatsOf are the seats that are held of a subscription or order.
func (s *Store) SeatsOf(purchase string) (seats []entitlement.Seat, err error) {
	err = s.read(func(tx kv.Tx) error {
		seats = nil
		return scanKind(tx.Bucket(bucketByParent), purchase, kindSeat, func(id string, _ []byte) error {
			seat, held, err := get(tx, bucketSeats, id, seatFields)
			if err == nil && held {
				seats = append(seats, seat)
			}
			return err
		})
	})
	return seats, err
}

// HoldsMember says whether an id is that of a member who is held.
func (s *Store) HoldsMember(id string) (held bool, err error) {
	err = s.read(func(tx kv.Tx) error {
		held = tx.Bucket(bucketMembers).Get(id) != nil
		return nil
	})
	return held, err
}

// PurchasesOf are the subscriptions and orders that are held of a customer.
func (s *Store) PurchasesOf(customer string) (subscriptions []entitlement.Subscription, orders []entitlement.Order, err error) {
	err = s.read(func(tx kv.Tx) error {
		subscriptions, orders = nil, nil
		return scan(tx.Bucket(bucketByCustomer), customer, func(k kind, id string) error {
			switch k {
			case kindSubscription:
				s, _, err := get(tx, bucketSubscriptions, id, subscriptionFields)
				subscriptions = append(subscriptions, s)
				return err
			case kindOrder:
				o, _, err := get(tx, bucketOrders, id, orderFields)
				orders = append(orders, o)
				return err
			}
			return nil
		})
	})
	return subscriptions, orders, err
}

// MembersOf are the members that are held of a customer.
func (s *Store) MembersOf(customer string) (members []entitlement.Member, err error) {
	err = s.read(func(tx kv.Tx) error {
		members = nil
		return scanKind(tx.Bucket(bucketByCustomer), customer, kindMember, func(id string, _ []byte) error {
			m, held, err := get(tx, bucketMembers, id, memberFields)
			if err == nil && held {
				members = append(members, m)
			}
			return err
		})
	})
	return members, err
}
