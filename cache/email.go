package cache

import (
	"context"
	"time"

	"github.com/caddy-polar/caddy-polar/cache/kv"
)

// Linking by e-mail. Of a customer or member without external id the store can
// keep a digest of the e-mail, never the e-mail, and that it was linked to whoever
// has proven to own it. What stands here is of such alone: with an external id, or
// when it is deleted, a customer or member loses its digest and link.

var (
	bucketEmails     = []byte("emails")      // customer or member → digest of its e-mail
	bucketByEmail    = []byte("by_email")    // digest → customers, members
	bucketEmailLinks = []byte("email_links") // customer or member → user
)

// EmailDigest stands for an e-mail. The zero digest is that of none.
type EmailDigest [16]byte

// Email is the e-mail of a customer or member at one version of its row, as
// whatever object tells it. The newest row wins; the zero time loses to all others.
type Email struct {
	ID     string // of the customer or member
	Member bool
	Digest EmailDigest
	Row    time.Time
}

func (e *Email) kind() kind {
	if e.Member {
		return kindMember
	}
	return kindCustomer
}

// EmailLink says that a user has proven to own an e-mail. The customers and
// members that have it, and are nobody's by a link, become the user's for good: the e-mail
// may change afterwards.
type EmailLink struct {
	User   string
	Digest EmailDigest
	// MembersOnly leaves customers out: the user is one already.
	MembersOnly bool
}

// emailRecord is an Email as it is stored.
type emailRecord struct {
	ID     string // of the customer or member
	Row    time.Time
	Digest string // empty: none
}

func emailFields(c *codec, v *emailRecord) {
	c.string(&v.ID)
	c.time(&v.Row)
	c.string(&v.Digest)
}

// emailUser is the user to whom a customer or member was linked by e-mail, or empty.
func emailUser(tx kv.Tx, customer string) string {
	return string(tx.Bucket(bucketEmailLinks).Get(customer))
}

func (f *fold) email(e *Email) error {
	counts, err := f.hasNoName(e)
	if err != nil || !counts {
		return err
	}
	old, held, err := get(f.tx, bucketEmails, e.ID, emailFields)
	if err != nil {
		return err
	}
	next := emailRecord{ID: e.ID, Row: e.Row}
	if e.Digest != (EmailDigest{}) {
		next.Digest = string(e.Digest[:])
	}
	// Of one row there is one e-mail. Should two be told, the order in which
	// they come must not decide.
	newer := e.Row.Compare(old.Row)
	if held && (newer < 0 || newer == 0 && next.Digest <= old.Digest) {
		return nil
	}
	if err := f.reindex(bucketByEmail, e.kind(), e.ID, old.Digest, next.Digest); err != nil {
		return err
	}
	return f.put(f.tx.Bucket(bucketEmails), e.ID, encode(emailFields, next))
}

// hasNoName says whether it is by the e-mail alone that a customer or member
// can be somebody. A member comes with the e-mail, or before it.
func (f *fold) hasNoName(e *Email) (bool, error) {
	if e.Member {
		m, held, err := get(f.tx, bucketMembers, e.ID, memberFields)
		return held && emailCounts(m.ExternalID, m.Deleted), err
	}
	c, _, err := get(f.tx, bucketCustomers, e.ID, customerFields)
	return emailCounts(c.ExternalID, !c.DeletedAt.IsZero()), err
}

func emailCounts(externalID string, deleted bool) bool { return externalID == "" && !deleted }

// dropEmail takes away the digest and link of a customer or member. It belongs
// inside of ownership or membership.
func (f *fold) dropEmail(k kind, id string) error {
	old, held, err := get(f.tx, bucketEmails, id, emailFields)
	if err != nil {
		return err
	}
	if held {
		if err := f.unindex(bucketByEmail, k, id, old.Digest); err != nil {
			return err
		}
		if err := f.remove(bucketEmails, id); err != nil {
			return err
		}
	}
	return f.remove(bucketEmailLinks, id)
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
	for _, id := range theirs {
		if emailUser(f.tx, id) != "" {
			continue // since the last time
		}
		err := f.reowned(id, func() error {
			return f.put(f.tx.Bucket(bucketEmailLinks), id, []byte(l.User))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// byEmail lists the customers and members with an e-mail: those that are the user's by it or
// can become so, and those that are others' by a link.
func byEmail(tx kv.Tx, l *EmailLink) (theirs, others []string, err error) {
	if l.Digest == (EmailDigest{}) {
		return nil, nil, nil
	}
	links := tx.Bucket(bucketLinks)
	err = scan(tx.Bucket(bucketByEmail), string(l.Digest[:]), func(k kind, id string) error {
		if l.MembersOnly && k != kindMember {
			return nil
		}
		user := emailUser(tx, id)
		if user == l.User || user == "" && links.Get(id) == nil {
			theirs = append(theirs, id)
		} else {
			others = append(others, id)
		}
		return nil
	})
	return theirs, others, err
}

// ByEmail lists the customers and members with an e-mail that a user has proven
// to own: those that are theirs by it, or become so when the link is applied, and those
// that are linked to others. Only after Apply is the first in force.
func (s *Store) ByEmail(l EmailLink) (theirs, others []string, err error) {
	err = s.read(func(tx kv.Tx) (err error) {
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
			if err := s.read(func(tx kv.Tx) error {
				ids = nil
				for key := range tx.Bucket(bucket).Range("", "", chunk) {
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
				return true, f.reowned(id, func() error { return f.dropEmail(f.kindOf(id), id) })
			})
			removed += n
			if err != nil {
				return removed, err
			}
		}
	}
	return removed, nil
}

// kindOf tells a member from a customer.
func (f *fold) kindOf(id string) kind {
	if f.tx.Bucket(bucketMembers).Get(id) != nil {
		return kindMember
	}
	return kindCustomer
}
