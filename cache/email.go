package cache

import (
	"context"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// Linking by e-mail. Of a customer without external id the store can keep a
// digest of the e-mail, never the e-mail, and that it was linked to whoever has
// proven to own it. What stands here is of such customers alone: with an
// external id, or when it is deleted, a customer loses its digest and link.

var (
	bucketEmails     = []byte("emails")      // customer → digest of its e-mail
	bucketByEmail    = []byte("by_email")    // digest → customers
	bucketEmailLinks = []byte("email_links") // customer → user
)

// EmailDigest stands for an e-mail. The zero digest is that of none.
type EmailDigest [16]byte

// Email is the e-mail of a customer at one version of its row, as whatever
// object tells it. The newest row wins; the zero time loses to all others.
type Email struct {
	Customer string
	Digest   EmailDigest
	Row      time.Time
}

// EmailLink says that a user has proven to own an e-mail. The customers that
// have it, and are nobody's by a link, become the user's for good: the e-mail
// may change afterwards.
type EmailLink struct {
	User   string
	Digest EmailDigest
}

// emailRecord is an Email as it is stored.
type emailRecord struct {
	ID     string // of the customer
	Row    time.Time
	Digest string // empty: none
}

func emailFields(c *codec, v *emailRecord) {
	c.string(&v.ID)
	c.time(&v.Row)
	c.string(&v.Digest)
}

// emailUser is the user to whom a customer was linked by e-mail, or empty.
func emailUser(tx *bolt.Tx, customer string) string {
	return string(tx.Bucket(bucketEmailLinks).Get([]byte(customer)))
}

func (f *fold) email(e *Email) error {
	c, _, err := get(f.tx, bucketCustomers, e.Customer, customerFields)
	if err != nil || !emailCounts(&c) {
		return err
	}
	old, held, err := get(f.tx, bucketEmails, e.Customer, emailFields)
	if err != nil {
		return err
	}
	next := emailRecord{ID: e.Customer, Row: e.Row}
	if e.Digest != (EmailDigest{}) {
		next.Digest = string(e.Digest[:])
	}
	// Of one row there is one e-mail. Should two be told, the order in which
	// they come must not decide.
	newer := e.Row.Compare(old.Row)
	if held && (newer < 0 || newer == 0 && next.Digest <= old.Digest) {
		return nil
	}
	if old.Digest != next.Digest {
		if err := f.unindex(bucketByEmail, kindCustomer, e.Customer, old.Digest); err != nil {
			return err
		}
		if err := f.index(bucketByEmail, next.Digest, kindCustomer, e.Customer); err != nil {
			return err
		}
	}
	return f.put(f.tx.Bucket(bucketEmails), []byte(e.Customer), encode(emailFields, next))
}

// emailCounts says whether a customer can be somebody's by its e-mail.
func emailCounts(c *entitlement.Customer) bool { return c.ExternalID == "" && c.DeletedAt.IsZero() }

// dropEmail takes away a customer's digest and link. It belongs inside of
// ownership.
func (f *fold) dropEmail(customer string) error {
	old, held, err := get(f.tx, bucketEmails, customer, emailFields)
	if err != nil {
		return err
	}
	if held {
		if err := f.unindex(bucketByEmail, kindCustomer, customer, old.Digest); err != nil {
			return err
		}
		if err := f.remove(bucketEmails, customer); err != nil {
			return err
		}
	}
	return f.remove(bucketEmailLinks, customer)
}

// emailLink links in the one place where nobody else writes: of two users with
// one e-mail the first has the customer, and keeps it.
func (f *fold) emailLink(l *EmailLink) error {
	if !ValidUser(l.User) {
		return ErrUser
	}
	theirs, _, err := byEmail(f.tx, l)
	if err != nil {
		return err
	}
	for _, customer := range theirs {
		if emailUser(f.tx, customer) != "" {
			continue // since the last time
		}
		err := f.ownership(customer, func() error {
			return f.put(f.tx.Bucket(bucketEmailLinks), []byte(customer), []byte(l.User))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// byEmail lists the customers with an e-mail: those that are the user's by it or
// can become so, and those that are others' by a link.
func byEmail(tx *bolt.Tx, l *EmailLink) (theirs, others []string, err error) {
	if l.Digest == (EmailDigest{}) {
		return nil, nil, nil
	}
	links := tx.Bucket(bucketLinks)
	err = scan(tx.Bucket(bucketByEmail), string(l.Digest[:]), func(_ kind, id string) error {
		user := emailUser(tx, id)
		if user == l.User || user == "" && links.Get([]byte(id)) == nil {
			theirs = append(theirs, id)
		} else {
			others = append(others, id)
		}
		return nil
	})
	return theirs, others, err
}

// ByEmail lists the customers with an e-mail that a user has proven to own:
// those that are theirs by it, or become so when the link is applied, and those
// that are linked to others. Only after Apply is the first in force.
func (s *Store) ByEmail(l EmailLink) (theirs, others []string, err error) {
	err = s.read(func(tx *bolt.Tx) (err error) {
		theirs, others, err = byEmail(tx, &l)
		return err
	})
	return theirs, others, err
}

// ForgetEmails removes all digests of e-mails, and all links that were made by
// them, links first. It says how many records that were.
func (s *Store) ForgetEmails(ctx context.Context) (removed int, err error) {
	for _, bucket := range [][]byte{bucketEmailLinks, bucketEmails} {
		for {
			var ids []string
			if err := s.read(func(tx *bolt.Tx) error {
				c := tx.Bucket(bucket).Cursor()
				for key, _ := c.First(); key != nil && len(ids) < chunk; key, _ = c.Next() {
					ids = append(ids, string(key))
				}
				return nil
			}); err != nil {
				return removed, err
			}
			if len(ids) == 0 {
				break
			}
			n, err := s.inBatches(ctx, ids, func(f *fold, id string, _ int) (bool, error) {
				return true, f.ownership(id, func() error { return f.dropEmail(id) })
			})
			removed += n
			if err != nil {
				return removed, err
			}
		}
	}
	return removed, nil
}
