package cache

import (
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// What the gateway itself has to remember: checkouts that it opened, and passes.

// checkout keeps the user of a checkout that this gateway opened: what Polar
// says of it later does not know them.
func (f *fold) checkout(c *Checkout) (verdict, error) {
	old, held, err := get(f.tx, bucketCheckouts, c.ID, checkoutFields)
	if err != nil {
		return stale, err
	}
	next := *c
	next.Used = old.Used
	if next.User == "" {
		next.User = old.User
	}
	if next.CustomerID == "" {
		next.CustomerID = old.CustomerID
	}
	if next.OpenedAt.Before(old.OpenedAt) {
		next.OpenedAt = old.OpenedAt
	}
	if sameContent(checkoutFields, old, next) {
		return stale, nil
	}
	if err := f.put(f.tx.Bucket(bucketCheckouts), c.ID, encode(checkoutFields, next)); err != nil {
		return stale, err
	}
	v := missing
	if held {
		v = wrong
	}
	// Only then: an entry that has expired does not come back with Polar's word
	// of the checkout.
	if opened := old.OpenedAt; next.User == old.User && opened.UnixMicro() == next.OpenedAt.UnixMicro() {
		return v, nil
	}
	return v, f.move(kindCheckout, c.ID, old.opener(), next.opener())
}

// opener is the user under whom an opened checkout stands, or empty.
func (c *Checkout) opener() string {
	if c.OpenedAt.IsZero() || !ValidUser(c.User) {
		return ""
	}
	return c.User
}

func (f *fold) pass(p *entitlement.Pass) error {
	if !ValidUser(p.User) || p.ID == "" {
		return ErrUser
	}
	f.touch(p.User)
	return f.put(f.tx.Bucket(bucketPasses), passKey(p), encode(passFields, *p))
}

func (f *fold) removePass(p *entitlement.Pass) error {
	if !ValidUser(p.User) || p.ID == "" {
		return ErrUser
	}
	f.touch(p.User)
	return f.remove(bucketPasses, passKey(p))
}

func passKey(p *entitlement.Pass) string {
	return p.User + "\x00" + p.ID
}
