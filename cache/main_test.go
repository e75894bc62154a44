package cache

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"go.uber.org/goleak"

	"github.com/caddy-polar/caddy-polar/cache/kv"
	"github.com/caddy-polar/caddy-polar/cache/kv/postgres"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// helperMode makes the test binary another process that uses a store.
const helperMode = "CACHE_TEST_HELPER"

func TestMain(m *testing.M) {
	if mode := os.Getenv(helperMode); mode != "" {
		os.Exit(help(mode, os.Getenv("CACHE_TEST_PATH")))
	}
	goleak.VerifyTestMain(m)
}

// postgresMode has stores in a database, of which it is the connection string.
const postgresMode = "CACHE_TEST_POSTGRES"

// unshared is a database that nobody else uses.
type unshared struct{ *postgres.Engine }

func (unshared) Shared() bool { return false }

// tester is *testing.T, *testing.B or *rapid.T.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var testOwner = Owner{Gateway: "default", Server: "https://api.polar.sh", Organization: "org"}

// testOrigin is when the tests' time begins.
var testOrigin = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// at is n seconds into the tests' time.
func at(n int) time.Time { return testOrigin.Add(time.Duration(n) * time.Second) }

// rev is a version: the row changed at n, told right then.
func rev(n int) entitlement.Version { return entitlement.Version{Row: at(n), AsOf: at(n)} }

// claimed opens a store. The caller closes it.
func claimed(t tester, path string) *Store {
	t.Helper()
	s := New(path)
	if _, err := s.Claim(testOwner); err != nil {
		t.Fatalf("claiming: %v", err)
	}
	return s
}

var storeNumber atomic.Int64

// fastStore is a claimed store without fsync, for tests that commit a lot.
func fastStore(t tester, dir string) *Store {
	t.Helper()
	if dsn := os.Getenv(postgresMode); dsn != "" {
		engine, err := postgres.New(postgres.Options{DSN: dsn, Schema: fmt.Sprintf("t%d", storeNumber.Add(1)), Buckets: Buckets()})
		if err != nil {
			t.Fatalf("%v", err)
		}
		s := NewStore(unshared{engine})
		if _, err := s.Claim(testOwner); err != nil {
			t.Fatalf("claiming: %v", err)
		}
		return s
	}
	s := claimed(t, filepath.Join(dir, fmt.Sprintf("%d.db", storeNumber.Add(1))))
	s.file().db.Load().NoSync = true
	return s
}

func testStore(t *testing.T) *Store {
	t.Helper()
	s := fastStore(t, t.TempDir())
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return s
}

func apply(t *testing.T, s *Store, facts *Facts) Applied {
	t.Helper()
	a, err := s.Apply(t.Context(), facts)
	if err != nil {
		t.Fatalf("applying: %v", err)
	}
	return a
}

func account(t tester, s *Store, user string) *entitlement.Account {
	t.Helper()
	a, err := s.Account(user)
	if err != nil {
		t.Fatalf("account of %q: %v", user, err)
	}
	return a
}

// stored is the account as the file has it, whatever memory says.
func stored(t tester, s *Store, user string) *entitlement.Account {
	t.Helper()
	var a *entitlement.Account
	if err := s.view(func(tx kv.Tx) (err error) {
		a, err = gather(tx, user)
		return err
	}); err != nil {
		t.Fatalf("gathering %q: %v", user, err)
	}
	return a
}

// view makes accounts comparable.
func view(a *entitlement.Account) string {
	f := a.Facts
	for _, empty := range []struct {
		is  bool
		nil func()
	}{
		{len(f.Customers) == 0, func() { f.Customers = nil }},
		{len(f.Subscriptions) == 0, func() { f.Subscriptions = nil }},
		{len(f.Orders) == 0, func() { f.Orders = nil }},
		{len(f.Grants) == 0, func() { f.Grants = nil }},
		{len(f.Refunds) == 0, func() { f.Refunds = nil }},
		{len(f.Passes) == 0, func() { f.Passes = nil }},
		{len(f.Seats) == 0, func() { f.Seats = nil }},
		{len(f.Members) == 0, func() { f.Members = nil }},
		{len(f.Foreign) == 0, func() { f.Foreign = nil }},
	} {
		if empty.is {
			empty.nil()
		}
	}
	return a.User + " " + strings.ReplaceAll(string(must(json.Marshal(f))), `"0001-01-01T00:00:00Z"`, "0")
}

// viewWithoutAsOf leaves out when each state was told.
func viewWithoutAsOf(a *entitlement.Account) string {
	f := entitlement.Facts{
		Customers: slices.Clone(a.Customers), Subscriptions: slices.Clone(a.Subscriptions), Orders: slices.Clone(a.Orders),
		Grants: slices.Clone(a.Grants), Refunds: slices.Clone(a.Refunds), Passes: slices.Clone(a.Passes),
		Seats: slices.Clone(a.Seats), Members: slices.Clone(a.Members), Foreign: slices.Clone(a.Foreign),
		CheckoutAt: a.CheckoutAt,
	}
	for i := range f.Customers {
		f.Customers[i].Version.AsOf = time.Time{}
	}
	for i := range f.Subscriptions {
		f.Subscriptions[i].Version.AsOf = time.Time{}
	}
	for i := range f.Orders {
		f.Orders[i].Version.AsOf = time.Time{}
	}
	for i := range f.Grants {
		f.Grants[i].Version.AsOf = time.Time{}
	}
	for i := range f.Refunds {
		f.Refunds[i].Version.AsOf = time.Time{}
	}
	for i := range f.Seats {
		f.Seats[i].Version.AsOf, f.Seats[i].ClaimedIn.AsOf = time.Time{}, time.Time{}
	}
	for i := range f.Members {
		f.Members[i].Version.AsOf = time.Time{}
	}
	return view(entitlement.NewAccount(a.User, f))
}

// sameAsStore checks that memory, whose user has no write under way, says what
// the file does.
func sameAsStore(t tester, s *Store, users ...string) {
	t.Helper()
	for _, user := range users {
		if got, want := view(account(t, s, user)), view(stored(t, s, user)); got != want {
			t.Errorf("memory of %s:\n%s\nfile:\n%s", user, got, want)
		}
	}
}

// dump is the content of a file, but for its random key.
func dump(t tester, s *Store) map[string]string {
	t.Helper()
	out := make(map[string]string)
	if err := s.view(func(tx kv.Tx) error {
		for _, name := range append([][]byte{bucketMeta, bucketKeys}, objectBuckets...) {
			b := tx.Bucket(name)
			if b == nil {
				continue // a file from before there was one
			}
			for k, v := range b.Range("", "", 0) {
				if string(name) != "meta" || string(k) != "key" {
					out[fmt.Sprintf("%s/%q", name, k)] = fmt.Sprintf("%q", v)
				}
			}
		}
		return nil
	}); err != nil {
		t.Fatalf("dumping: %v", err)
	}
	return out
}

// differences lists the keys at which two dumps are not the same.
func differences(a, b map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(a)) {
		if v, ok := b[k]; !ok || v != a[k] {
			out = append(out, fmt.Sprintf("%s = %s, other: %s", k, a[k], v))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(b)) {
		if _, ok := a[k]; !ok {
			out = append(out, fmt.Sprintf("%s absent, other: %s", k, b[k]))
		}
	}
	return strings.Join(out, "\n")
}

// parked waits until n goroutines that run a function stand in a wait of the
// kind.
func parked(n int, function, wait string) {
	buf := make([]byte, 1<<22)
	for {
		found := 0
		for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			head, body, _ := strings.Cut(g, "\n")
			if strings.Contains(head, "["+wait) && strings.Contains(body, function+"(") {
				found++
			}
		}
		if found >= n {
			return
		}
		runtime.Gosched()
	}
}

// mirror is the objects of a store without any index: from it everything else
// is worked out a second time, in the simplest way.
type mirror struct {
	customers     map[string]entitlement.Customer
	subscriptions map[string]entitlement.Subscription
	orders        map[string]entitlement.Order
	grants        map[string]entitlement.Grant
	refunds       map[string]entitlement.Refund
	members       map[string]entitlement.Member
	seats         map[string]entitlement.Seat
	// checkouts are those that were opened before anything was bought in them. A
	// store has already put their users into the purchases.
	checkouts map[string]Checkout
	// opened are those with their times, of which those since then count.
	opened map[string]Checkout
	since  time.Time
	links  map[string]string
	// emails and emailLinks are those that a store holds: of what counts alone.
	emails     map[string]emailRecord
	emailLinks map[string]string
	passes     []entitlement.Pass
}

func readAll[T any](tx kv.Tx, bucket string, fields func(*codec, *T)) map[string]T {
	out := make(map[string]T)
	for k, v := range tx.Bucket([]byte(bucket)).Range("", "", 0) {
		out[string(k)] = must(readRecord(string(k), fields, v))
	}
	return out
}

func readMirror(t tester, s *Store) *mirror {
	t.Helper()
	m := &mirror{links: make(map[string]string), emailLinks: make(map[string]string)}
	if err := s.view(func(tx kv.Tx) error {
		m.customers = readAll(tx, "customers", customerFields)
		m.subscriptions = readAll(tx, "subscriptions", subscriptionFields)
		m.orders = readAll(tx, "orders", orderFields)
		m.grants = readAll(tx, "grants", grantFields)
		m.refunds = readAll(tx, "refunds", refundFields)
		m.members = readAll(tx, "members", memberFields)
		m.seats = readAll(tx, "seats", seatFields)
		m.opened = readAll(tx, "checkouts", checkoutFields)
		m.passes = slices.Collect(maps.Values(readAll(tx, "passes", passFields)))
		m.emails = readAll(tx, "emails", emailFields)
		for bucket, links := range map[string]map[string]string{"links": m.links, "email_links": m.emailLinks} {
			for k, v := range tx.Bucket([]byte(bucket)).Range("", "", 0) {
				links[string(k)] = string(v)
			}
		}
		return nil
	}); err != nil {
		t.Fatalf("reading all: %v", err)
	}
	return m
}

// whose says who owns a purchase: nobody if the strongest word names nobody
// who can be a user.
func (m *mirror) whose(customer, metadata, checkout string) string {
	user := cmp.Or(m.customers[customer].ExternalID, m.emailLinks[customer])
	if opened := m.checkouts[checkout].User; checkout != "" && opened != "" {
		user = opened
	}
	if metadata != "" {
		user = metadata
	}
	if link := m.links[customer]; link != "" {
		user = link
	}
	return userOrNobody(user)
}

func userOrNobody(user string) string {
	if len(user) > 255 || !utf8.ValidString(user) || strings.ContainsFunc(user, unicode.IsControl) {
		return ""
	}
	return user
}

func (m *mirror) ofSubscription(id string) string {
	s := m.subscriptions[id]
	return m.whose(s.CustomerID, s.MetadataUser, s.CheckoutID)
}

func (m *mirror) ofOrder(id string) string {
	o := m.orders[id]
	return m.whose(o.CustomerID, o.MetadataUser, o.CheckoutID)
}

// subscriptionOf is the subscription that a refund concerns.
func (m *mirror) subscriptionOf(r entitlement.Refund) string {
	if r.SubscriptionID != "" {
		return r.SubscriptionID
	}
	return m.orders[r.OrderID].SubscriptionID
}

// indexes are the keys that the index buckets must have, and no other.
func (m *mirror) indexes() map[string]string {
	out := make(map[string]string)
	add := func(bucket, holder, kind, id string) {
		if holder != "" {
			out[fmt.Sprintf("%s/%q", bucket, holder+"\x00"+kind+id)] = `""`
		}
	}
	for id := range m.customers {
		add("by_user", m.whose(id, "", ""), "c", id)
	}
	for _, links := range []map[string]string{m.links, m.emailLinks} {
		for id := range links {
			if _, member := m.members[id]; !member {
				add("by_user", m.whose(id, "", ""), "c", id)
			}
		}
	}
	for id, e := range m.emails {
		kind := "c"
		if _, member := m.members[id]; member {
			kind = "m"
		}
		add("by_email", e.Digest, kind, id)
	}
	m.teamIndexes(out, add)
	for id, s := range m.subscriptions {
		add("by_user", m.ofSubscription(id), "s", id)
		add("by_customer", s.CustomerID, "s", id)
	}
	for id, o := range m.orders {
		if o.SubscriptionID == "" {
			add("by_user", m.ofOrder(id), "o", id)
		}
		add("by_customer", o.CustomerID, "o", id)
	}
	for id, g := range m.grants {
		if g.ForMember {
			continue
		}
		add("by_customer", g.CustomerID, "g", id)
		add("by_parent", g.SubscriptionID, "g", id)
		add("by_parent", g.OrderID, "g", id)
	}
	for id, c := range m.opened {
		if m.lately(c) {
			add("by_user", c.User, "k", id)
		}
	}
	for id, r := range m.refunds {
		add("by_parent", m.subscriptionOf(r), "r", id)
		add("by_parent", r.OrderID, "r", id)
	}
	return out
}

func (m *mirror) lately(c Checkout) bool {
	m.links["?"] = c.User
	named := m.whose("?", "", "") // nobody if it cannot be a user
	delete(m.links, "?")
	return named != "" && !c.OpenedAt.IsZero() && !c.OpenedAt.Before(m.since)
}

// account works an account out from the objects alone.
func (m *mirror) account(user string) *entitlement.Account {
	var f entitlement.Facts
	if user == "" {
		return entitlement.NewAccount(user, f) // nobody owns what nobody owns
	}
	customers := make(map[string]entitlement.HeldCustomer)
	hold := func(id string) entitlement.HeldCustomer {
		h := customers[id]
		h.Customer = m.customers[id]
		h.ID = id
		customers[id] = h
		return h
	}
	own := func(id string) {
		if _, member := m.members[id]; member || m.whose(id, "", "") != user {
			return
		}
		h := hold(id)
		h.Own, h.Shared, h.ByEmail = true, false, m.emailLinks[id] != ""
		for s, v := range m.subscriptions {
			h.Shared = h.Shared || v.CustomerID == id && m.ofSubscription(s) != user
		}
		for o, v := range m.orders {
			h.Shared = h.Shared || v.CustomerID == id && m.ofOrder(o) != user
		}
		customers[id] = h
	}
	for id := range m.customers {
		own(id)
	}
	for id := range m.links {
		own(id)
	}
	for id := range m.emailLinks {
		own(id)
	}
	mine := func(subscription, order string) bool {
		_, s := m.subscriptions[subscription]
		o, held := m.orders[order]
		return s && m.ofSubscription(subscription) == user ||
			held && o.SubscriptionID == "" && m.ofOrder(order) == user
	}
	for id, s := range m.subscriptions {
		if mine(id, "") {
			s.MetadataUser = cmp.Or(s.MetadataUser, m.checkouts[s.CheckoutID].User)
			f.Subscriptions = append(f.Subscriptions, s)
			hold(s.CustomerID)
		}
	}
	for id, o := range m.orders {
		if mine("", id) {
			o.MetadataUser = cmp.Or(o.MetadataUser, m.checkouts[o.CheckoutID].User)
			f.Orders = append(f.Orders, o)
			hold(o.CustomerID)
		}
	}
	for _, g := range m.grants {
		s, sHeld := m.subscriptions[g.SubscriptionID]
		o, oHeld := m.orders[g.OrderID]
		orphan := !sHeld && !oHeld && customers[g.CustomerID].Own && !g.ForMember
		ofSubscription := mine(g.SubscriptionID, "") && !(g.ForMember && s.Seats)
		if orphan || ofSubscription || mine("", g.OrderID) && !(g.ForMember && o.Seats) {
			f.Grants = append(f.Grants, g)
		}
	}
	for _, r := range m.refunds {
		if s := m.subscriptionOf(r); mine(s, "") {
			r.SubscriptionID = s
			f.Refunds = append(f.Refunds, r)
		} else if mine("", r.OrderID) {
			f.Refunds = append(f.Refunds, r)
		}
	}
	for _, c := range m.opened {
		if c.User == user && m.lately(c) && c.OpenedAt.After(f.CheckoutAt) {
			f.CheckoutAt = c.OpenedAt
		}
	}
	for _, p := range m.passes {
		if p.User == user {
			f.Passes = append(f.Passes, p)
		}
	}
	f.Customers = slices.Collect(maps.Values(customers))
	m.teamOf(user, &f)
	return entitlement.NewAccount(user, f)
}

// onlyWhatCounts checks that nothing of e-mails is held of a customer that
// cannot be linked by one, and no link beside the operator's.
func (m *mirror) onlyWhatCounts(t tester) {
	t.Helper()
	for id, member := range m.members {
		_, linked := m.emailLinks[id]
		_, digest := m.emails[id]
		if (linked || digest) && (member.ExternalID != "" || member.Deleted) || linked && m.links[id] != "" {
			t.Errorf("an e-mail is held of %+v", member)
		}
	}
	for id, e := range m.emails {
		if c := m.customers[id]; e.ID != id || c.ExternalID != "" || !c.DeletedAt.IsZero() {
			t.Errorf("%+v is held of %+v", e, c)
		}
	}
	for id, user := range m.emailLinks {
		if c := m.customers[id]; m.links[id] != "" || c.ExternalID != "" || !c.DeletedAt.IsZero() || !ValidUser(user) {
			t.Errorf("%+v, linked to %q, is %q's by e-mail", c, m.links[id], user)
		}
	}
}

// consistent checks a store against what its objects alone say.
func consistent(t tester, s *Store, users ...string) {
	t.Helper()
	consistentSince(t, s, time.Time{}, users...)
}

// consistentSince is the same when checkouts opened before then have expired.
func consistentSince(t tester, s *Store, since time.Time, users ...string) {
	t.Helper()
	m := readMirror(t, s)
	m.since = since
	have := dump(t, s)
	maps.DeleteFunc(have, func(k, _ string) bool { return !strings.HasPrefix(k, "by_") })
	m.onlyWhatCounts(t)
	if diff := differences(have, m.indexes()); diff != "" {
		t.Errorf("indexes are not those of the objects:\n%s", diff)
	}
	for _, user := range users {
		want := view(m.account(user))
		if got := view(stored(t, s, user)); got != want {
			t.Errorf("account in the file:\n%s\nby the objects:\n%s", got, want)
		}
		if got := view(account(t, s, user)); got != want {
			t.Errorf("account in memory:\n%s\nby the objects:\n%s", got, want)
		}
	}
}

// view reads a store, claimed or not.
func (s *Store) view(body func(kv.Tx) error) error {
	return s.engine.Transact(false, func(tx kv.Tx) (bool, error) { return false, body(tx) })
}

// file is the engine of a store that is in a file.
func (s *Store) file() *file { return s.engine.(*file) }
