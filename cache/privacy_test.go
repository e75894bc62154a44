package cache

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	bolt "go.etcd.io/bbolt"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// naming lists where a text stands in a store, as it is, or in bytes if it is a UUID.
func naming(t *testing.T, s *Store, text string) (where []string) {
	t.Helper()
	forms := []string{text}
	if id, err := uuid.Parse(text); err == nil {
		forms = append(forms, string(id[:]))
	}
	err := must(s.file().open()).View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				for _, form := range forms {
					if strings.Contains(string(k), form) || strings.Contains(string(v), form) {
						where = append(where, string(name)+"/"+hex.EncodeToString(k))
					}
				}
				return nil
			})
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return where
}

// TestForgottenIsInNoBucket: of somebody who is forgotten nothing is left that tells
// them: neither the id, nor that of a customer of theirs alone, nor what stands for the
// e-mail; not in the journal either.
func TestForgottenIsInNoBucket(t *testing.T) {
	const (
		ada, bob     = "ada@example.com", "bob"
		own, mailed  = "1509bb0a-9bf1-4331-8a11-8783593942a4", "2609bb0a-9bf1-4331-8a11-8783593942a5"
		lost, member = "3709bb0a-9bf1-4331-8a11-8783593942a6", "4809bb0a-9bf1-4331-8a11-8783593942a7"
		sub, order   = "5909bb0a-9bf1-4331-8a11-8783593942a8", "6a09bb0a-9bf1-4331-8a11-8783593942a9"
		grant, seat  = "7b09bb0a-9bf1-4331-8a11-8783593942aa", "8c09bb0a-9bf1-4331-8a11-8783593942ab"
		checkout     = "9d09bb0a-9bf1-4331-8a11-8783593942ac"
		team         = "ae09bb0a-9bf1-4331-8a11-8783593942ad"
	)
	s := testStore(t)
	ended := subscribed(9, sub, own, ada, checkout)
	ended.Subscriptions[0].Status = entitlement.StatusCanceled
	for i, f := range []*Facts{
		{Checkouts: []Checkout{{ID: checkout, User: ada, CustomerID: own, OpenedAt: at(1)}}},
		customer(1, own, ada), subscribed(1, sub, own, ada, checkout), ordered(1, order, own, sub, ada, ""), granted(1, grant, own, sub, ""), ended,
		emailed(1, mailed, "ada"), subscribed(1, "s2", mailed, "", ""), proven(ada, "ada"), // hers by e-mail
		customer(1, lost, ada), subscribed(1, "s3", lost, ada, ""), customer(2, lost, bob), // given to Bob at Polar
		customer(1, team, bob), membered(1, member, team, ada, "member"), memberEmailed(1, member, "ada"), subscribed(1, "s4", team, "", ""),
		seated(2, seat, "s4", "", team, member), memberGranted(2, "g2", team, "s4", "", member), membered(3, member, team, ada, "billing_manager"),
		{Passes: []entitlement.Pass{{ID: "p1", User: ada, Plan: "pro", Reason: "press"}}},
		linked(own, ada),
	} {
		f.At, f.Audit, f.Source = at(i), 30*24*time.Hour, Source{SourceWebhook, "evt_1"}
		apply(t, s, f)
	}
	digest := digested("ada")
	hers := map[string]string{"user": ada, "customer": own, "customer by e-mail": mailed, "e-mail": string(digest[:]), "subscription": sub, "order": order, "grant": grant, "checkout": checkout, "pass": "press"}
	for what, text := range hers {
		if len(naming(t, s, text)) == 0 {
			t.Errorf("the test looks for the %s in the wrong way", what)
		}
	}
	if _, err := s.Forget(t.Context(), ada); err != nil {
		t.Fatal(err)
	}
	for what, text := range hers {
		for _, where := range naming(t, s, text) {
			t.Errorf("%s still has the %s", where, what)
		}
	}
	// What is Bob's stays.
	for _, id := range []string{lost, team} {
		if len(naming(t, s, id)) == 0 {
			t.Errorf("%s, which is Bob's, is gone", id)
		}
	}
	if a := account(t, s, bob); len(a.Subscriptions) != 1 || len(a.Customers) != 2 {
		t.Errorf("Bob holds %q", holds(a))
	}
	consistent(t, s, ada, bob)
}
