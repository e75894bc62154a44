package cache

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	bolt "go.etcd.io/bbolt"
)

func TestByEmail(t *testing.T) {
	s := testStore(t)
	for _, f := range []*Facts{
		emailed(1, "c1", "x"), emailed(1, "c2", "x"), emailed(1, "c3", "x"), emailed(1, "c4", "y"),
		linked("c2", "l"), proven("a", "x"), emailed(1, "c5", "x"),
	} {
		if a := apply(t, s, f); a != (Applied{}) { // what is ours, or tells of a customer besides, is no news of Polar's
			t.Errorf("%+v: %+v", *f, a)
		}
	}
	for who, want := range map[EmailLink]string{
		{User: "a", Digest: digested("x")}: "[c1 c3 c5] [c2]", {User: "b", Digest: digested("x")}: "[c5] [c1 c2 c3]", {User: "l", Digest: digested("x")}: "[c5] [c1 c2 c3]",
		{User: "b", Digest: digested("y")}: "[c4] []", {User: "b", Digest: digested("z")}: "[] []", {User: "b", Digest: digested("")}: "[] []",
	} {
		theirs, others, err := s.ByEmail(who)
		if got := fmt.Sprint(theirs, others); got != want || err != nil {
			t.Errorf("%s: %s, %v, want %s", who.User, got, err, want)
		}
	}
	if _, err := s.Apply(t.Context(), proven("a\nb", "y")); !errors.Is(err, ErrUser) {
		t.Errorf("linked to nobody: %v", err)
	}
}

// TestEmailWritesNothingTwice: what is known is not written again, and what
// proves nothing new costs no commit.
func TestEmailWritesNothingTwice(t *testing.T) {
	s := testStore(t)
	for _, f := range []*Facts{customer(1, "c1", ""), emailed(3, "c1", "x"), customer(1, "c2", "e"), proven("a", "x")} {
		apply(t, s, f)
	}
	before := lastCommit(s)
	for _, f := range []*Facts{
		emailed(3, "c1", "x"), emailed(2, "c1", "y"), emailed(9, "c2", "x"), proven("a", "x"), proven("b", "x"), proven("b", "none"),
	} {
		apply(t, s, f)
		if lastCommit(s) != before {
			t.Fatalf("%+v was written", *f)
		}
	}
}

// TestEmailsOfOneRow: should two be told of one row, both orders end the same.
func TestEmailsOfOneRow(t *testing.T) {
	for _, other := range []string{"y", ""} {
		a, b := testStore(t), testStore(t)
		for _, email := range []string{"x", other} {
			apply(t, a, emailed(1, "c1", email))
		}
		for _, email := range []string{other, "x"} {
			apply(t, b, emailed(1, "c1", email))
		}
		if diff := differences(dump(t, a), dump(t, b)); diff != "" {
			t.Errorf("%q:\n%s", other, diff)
		}
		consistent(t, a)
		consistent(t, b)
	}
}

// TestFirstLinkStands: of many who come at one moment exactly one has all of it.
func TestFirstLinkStands(t *testing.T) {
	s := testStore(t)
	for _, f := range []*Facts{emailed(1, "c1", "x"), subscribed(1, "s1", "c1", "", ""), emailed(1, "c2", "x")} {
		apply(t, s, f)
	}
	const many = 20
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			if _, err := s.Apply(context.Background(), proven(fmt.Sprint("u", i), "x")); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	owners := 0
	for i := range many {
		user := fmt.Sprint("u", i)
		if got := holds(account(t, s, user)); got != "" {
			owners++
			if got != "c1+email+own c2+email+own s1 =c1" {
				t.Errorf("%s holds %q", user, got)
			}
		}
		consistent(t, s, user)
	}
	if owners != 1 {
		t.Errorf("%d users have it", owners)
	}
}

func TestMemoryFollowsEmail(t *testing.T) {
	s := testStore(t)
	users := []string{"a", "b", "l", "e"}
	for _, step := range []struct {
		facts *Facts
		want  []string // of the users
	}{
		{subscribed(1, "s1", "c1", "", ""), []string{"", "", "", ""}},
		{emailed(1, "c1", "x"), []string{"", "", "", ""}},
		{proven("a", "x"), []string{"c1+email+own s1 =c1", "", "", ""}},
		{proven("b", "x"), []string{"c1+email+own s1 =c1", "", "", ""}},
		{subscribed(1, "s2", "c1", "b", ""), []string{"c1+email+own+shared s1", "c1 s2", "", ""}},
		{linked("c1", "l"), []string{"", "", "c1+own s1 s2 =c1", ""}},
		{linked("c1", ""), []string{"", "c1 s2", "", ""}},
		{proven("b", "x"), []string{"", "c1+email+own s1 s2 =c1", "", ""}},
		{named("c1", "e"), []string{"", "c1 s2", "", "c1+own+shared s1"}},
		{proven("a", "x"), []string{"", "c1 s2", "", "c1+own+shared s1"}},
	} {
		for _, user := range users {
			_ = account(t, s, user)
		}
		apply(t, s, step.facts)
		for i, user := range users {
			held, ok := s.memory.get(user)
			if !ok || holds(held) != step.want[i] {
				t.Errorf("after %+v %s holds %q in memory, want %q", *step.facts, user, holds(account(t, s, user)), step.want[i])
			}
		}
		consistent(t, s, users...)
	}
}

func TestForgetLinkedByEmail(t *testing.T) {
	s := testStore(t)
	for _, f := range []*Facts{
		customer(1, "c1", ""), emailed(1, "c1", "x"), subscribed(1, "s1", "c1", "", ""),
		emailed(1, "c2", "x"), subscribed(1, "s2", "c2", "bob", ""), // stays, for bob
		customer(1, "c3", ""), emailed(1, "c3", "y"), linked("c3", "a"), subscribed(1, "s3", "c3", "bob", ""), // the link's
		emailed(1, "c4", "z"), proven("bob", "z"), proven("a", "x"),
	} {
		apply(t, s, f)
	}
	if got, want := holds(account(t, s, "a")), "c1+email+own c2+email+own+shared c3+own s1 s3 =c1"; got != want {
		t.Fatalf("holds %q, want %q", got, want)
	}
	if _, err := s.Forget(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if got := holds(account(t, s, "a")); got != "" {
		t.Errorf("holds %q", got)
	}
	if got, want := holds(account(t, s, "bob")), "c2 c4+email+own s2 =c4"; got != want {
		t.Errorf("bob holds %q, want %q", got, want)
	}
	m := readMirror(t, s)
	if len(m.emails) != 1 || len(m.emailLinks) != 1 {
		t.Errorf("left: %v %v", m.emails, m.emailLinks)
	}
	consistent(t, s, "a", "bob")
	// What Polar has told before is no word of the e-mail's owner.
	apply(t, s, subscribed(2, "s1", "c1", "", ""))
	if got := holds(account(t, s, "a")); got != "" {
		t.Errorf("holds %q again", got)
	}
}

// TestForgetEmails: nothing of e-mails is left, in batches, and everything else
// is as if there had never been any.
func TestForgetEmails(t *testing.T) {
	s, never := testStore(t), testStore(t)
	users := []string{"e", "l", "bob"}
	for i := range 2*chunk + 7 {
		id, email := fmt.Sprint("c", i), fmt.Sprint("x", i%(chunk+3))
		user := fmt.Sprint("u", i%(chunk+3))
		users = append(users, user)
		for _, f := range []*Facts{customer(1, id, ""), subscribed(1, "s"+id, id, "", "")} {
			apply(t, s, f)
			apply(t, never, f)
		}
		apply(t, s, emailed(1, id, email))
		apply(t, s, proven(user, email))
	}
	for _, f := range []*Facts{customer(2, "c1", "e"), linked("c2", "l"), subscribed(2, "sc3", "c3", "bob", "")} {
		apply(t, s, f)
		apply(t, never, f)
	}
	for _, user := range users {
		_ = account(t, s, user)
	}
	n, err := s.ForgetEmails(t.Context())
	if want := 2*(2*chunk+7) - 2 - 1; n != want || err != nil { // c1 has an external id, c2 a link
		t.Errorf("removed %d, %v, want %d", n, err, want)
	}
	if diff := differences(dump(t, s), dump(t, never)); diff != "" {
		t.Errorf("left:\n%.2000s", diff)
	}
	for _, user := range users {
		if got, want := holds(account(t, s, user)), holds(account(t, never, user)); got != want {
			t.Fatalf("%s holds %q, want %q", user, got, want)
		}
	}
	before := lastCommit(s)
	if n, err := s.ForgetEmails(t.Context()); n != 0 || err != nil || lastCommit(s) != before {
		t.Errorf("again: %d, %v", n, err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	apply(t, s, emailed(1, "c0", "x"))
	if _, err := s.ForgetEmails(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestFileFromBeforeEmails: a file without these buckets is read as it is, and
// gets them when it is claimed.
func TestFileFromBeforeEmails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "polar.db")
	s := claimed(t, path)
	for _, f := range []*Facts{customer(1, "c1", "a"), subscribed(1, "s1", "c1", "", ""), customer(1, "c2", "")} {
		apply(t, s, f)
	}
	if err := s.file().db.Load().Update(func(tx *bolt.Tx) error {
		return errors.Join(tx.DeleteBucket(bucketEmails), tx.DeleteBucket(bucketByEmail), tx.DeleteBucket(bucketEmailLinks))
	}); err != nil {
		t.Fatal(err)
	}
	for name, content := range dump(t, s) {
		if strings.Contains(name, "email") {
			t.Fatal(name, content)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = claimed(t, path)
	if got := holds(account(t, s, "a")); got != "c1+own s1 =c1" {
		t.Errorf("holds %q", got)
	}
	apply(t, s, emailed(1, "c2", "x"))
	apply(t, s, proven("b", "x"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = claimed(t, path) // and a restart later
	defer s.Close()
	if got := holds(account(t, s, "b")); got != "c2+email+own =c2" {
		t.Errorf("after a restart b holds %q", got)
	}
	consistent(t, s, "a", "b")
}
