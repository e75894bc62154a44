package cache

import (
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// What hangs on a purchase: grants and refunds. Seats are in team.go.

func (f *fold) grant(g *entitlement.Grant) (verdict, error) {
	old, held, err := get(f.tx, bucketGrants, g.ID, grantFields)
	if err != nil {
		return stale, err
	}
	if !held && !(g.Granted && !g.Revoked) && f.gone(g.Version, g.SubscriptionID, g.OrderID) {
		return gone, nil
	}
	v := judge(f, grantFields, held, &old, g, old.Version, g.Version)
	if !v.isNews() {
		return v, nil
	}
	return v, f.putGrant(&old, g)
}

func (f *fold) putGrant(old, g *entitlement.Grant) error {
	from, err := grantOwner(f.tx, old)
	if err != nil {
		return err
	}
	if err := keep(f, kindGrant, g.ID, grantFields, grantDiff, old, g); err != nil {
		return err
	}
	if err := f.reindex(bucketByMember, kindGrant, g.ID, memberOf(old), memberOf(g)); err != nil {
		return err
	}
	if err := f.underCustomer(kindGrant, g.ID, buyerOf(old), buyerOf(g)); err != nil {
		return err
	}
	if !g.ForMember {
		if err := f.buyersGrant(old.ForMember, g, from); err != nil {
			return err
		}
		return f.touchParents(g.SubscriptionID, g.OrderID)
	}
	// Before there were members, theirs stood under the customer.
	if err := f.unindex(bucketByCustomer, kindGrant, g.ID, old.CustomerID, g.CustomerID); err != nil {
		return err
	}
	to, err := grantOwner(f.tx, g)
	if err != nil {
		return err
	}
	if err := f.moveChild(owned{kindGrant, g.ID, to, [2]string{g.SubscriptionID, g.OrderID}}, from); err != nil {
		return err
	}
	return f.touchParents(g.SubscriptionID, g.OrderID) // without seats it is the buyer's too
}

// buyersGrant puts a grant under its parents. Perhaps it was a member's before.
func (f *fold) buyersGrant(wasMembers bool, g *entitlement.Grant, from string) error {
	if wasMembers {
		if err := f.unindex(bucketByParent, kindGrant, g.ID, g.SubscriptionID, g.OrderID); err != nil {
			return err
		}
		if err := f.move(kindGrant, g.ID, from, ""); err != nil {
			return err
		}
	}
	for _, parent := range []string{g.SubscriptionID, g.OrderID} {
		if err := f.index(bucketByParent, parent, kindGrant, g.ID); err != nil {
			return err
		}
	}
	return nil
}

// buyerOf is the customer who has a grant, if that is not a member.
func buyerOf(g *entitlement.Grant) string {
	if g.ForMember {
		return ""
	}
	return g.CustomerID
}

// memberOf is the member who has a grant, if that is not the buyer.
func memberOf(g *entitlement.Grant) string {
	if g.ForMember {
		return g.MemberID
	}
	return ""
}

func (f *fold) refund(r *entitlement.Refund) (verdict, error) {
	old, held, err := get(f.tx, bucketRefunds, r.ID, refundFields)
	if err != nil {
		return stale, err
	}
	if !held && f.gone(r.Version, r.SubscriptionID, r.OrderID) {
		return gone, nil
	}
	v := judge(f, refundFields, held, &old, r, old.Version, r.Version)
	if !v.isNews() {
		return v, nil
	}
	if err := keep(f, kindRefund, r.ID, refundFields, refundDiff, &old, r); err != nil {
		return stale, err
	}
	subscription := r.SubscriptionID
	if subscription == "" {
		o, _, err := get(f.tx, bucketOrders, r.OrderID, orderFields)
		if err != nil {
			return stale, err
		}
		subscription = o.SubscriptionID
	}
	for _, parent := range []string{subscription, r.OrderID} {
		if err := f.index(bucketByParent, parent, kindRefund, r.ID); err != nil {
			return stale, err
		}
	}
	return v, f.touchRefunded(subscription, r.OrderID)
}
