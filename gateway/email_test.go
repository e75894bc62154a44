package gateway

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
	"github.com/caddy-polar/caddy-polar/polar/box"
)

func linkingEmail(c *Config) { c.LinkEmail = true }

// verified is somebody whose token has a verified e-mail.
func verified(user, email string) Visitor {
	return Visitor{User: user, Email: email, EmailVerified: true}
}

// comes is what a gate answers to somebody, and how it came to be.
func (s *shop) comes(v Visitor, plan string) entitlement.Decision {
	s.t.Helper()
	a, err := s.g.AccountOf(v)
	if err != nil {
		s.t.Fatal(err)
	}
	q, err := s.g.Rules().Require(plan)
	if err != nil {
		s.t.Fatal(err)
	}
	d := entitlement.Decide(a, q, s.g.Rules(), s.g.Now())
	s.seen.agree(s.t, s.g, v, q, d)
	if !d.Allowed {
		_, d, _ = s.g.ConfirmOf(s.t.Context(), v, a, q, d)
	}
	return d
}

func (s *shop) lets(v Visitor, plan string, allowed bool) {
	s.t.Helper()
	want := entitlement.ReasonNoSubscription
	if allowed {
		want = entitlement.ReasonActive
	}
	if d := s.comes(v, plan); d.Allowed != allowed || d.Reason != want {
		s.t.Errorf("%s on %s: %v %s, want %v %s", v.User, plan, d.Allowed, d.Reason, allowed, want)
	}
}

// buysAlone is a purchase past the gateway, by a payment link.
func (s *shop) buysAlone(email, product string) box.Customer {
	s.t.Helper()
	x, err := s.box.Buy("", email, product)
	if err != nil {
		s.t.Fatal(err)
	}
	s.box.Settle()
	c, ok := s.box.Customer(x.CustomerID)
	if !ok || c.ExternalID != "" {
		s.t.Fatalf("customer %+v", c)
	}
	return c
}

// again is the same shop's gateway after a restart with another configuration.
func (s *shop) again(change ...func(*Config)) *shop {
	s.t.Helper()
	s.g.Stop()
	s.g.Close()
	if err := s.config.Store.Close(); err != nil {
		s.t.Fatal(err)
	}
	next := newShopAt(s.t, s.box, func(c *Config) {
		plans := s.config.Plans
		*c = s.config
		c.Plans, c.Store = plans, cache.New(s.config.Store.Path())
	}, func(c *Config) {
		for _, do := range change {
			do(c)
		}
	})
	next.pro, next.logs = s.pro, s.logs
	s.g = next.g // the endpoint leads there
	return next
}

func TestFoldEmail(t *testing.T) {
	long := strings.Repeat("a", 320-len("@example.com"))
	for _, tt := range []struct{ address, want string }{
		{"ada@example.com", "ada@example.com"},
		{"Ada.B+c@EXAMPLE.com", "ada.b+c@example.com"},
		{"\u212aim@example.com", "\u212aim@example.com"}, // the Kelvin sign is no k
		{"\u00c4DA@example.com", "\u00c4da@example.com"},
		{"ada@\u0130stanbul.example", "ada@\u0130stanbul.example"},
		{long + "@example.com", long + "@example.com"},
		{"a" + long + "@example.com", ""},
		{"", ""},
		{"@", ""},
		{"ada", ""},
		{"ada@", ""},
		{"@example.com", ""},
		{"ada@example.com@evil.example", ""},
		{`"ada@evil.example"@example.com`, ""},
		{"ada@@example.com", ""},
		{" ada@example.com", ""},
		{"ada@example.com ", ""},
		{"a da@example.com", ""},
		{"ada@exa\u00a0mple.com", ""},
		{"ada@exam\u2003ple.com", ""},
		{"ada\x00@example.com", ""},
		{"ada@example.com\n", ""},
		{"ada@example.com\r\nbcc:x", ""},
		{"ada\u0085@example.com", ""},
		{"ada\xff@example.com", ""},
		{"ada\ufffd@example.com", ""},
	} {
		if got, ok := foldEmail(tt.address); got != tt.want && ok || ok != (tt.want != "") {
			t.Errorf("%.40q: %.40q %v, want %.40q", tt.address, got, ok, tt.want)
		}
	}
}

func FuzzFoldEmail(f *testing.F) {
	for _, s := range []string{"Ada@Example.com", "a@b@c", "\u212a@x", " a@b", "a@b\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, address string) {
		folded, ok := foldEmail(address)
		if !ok {
			return
		}
		if len(folded) != len(address) || strings.Count(folded, "@") != 1 || !strings.EqualFold(folded, address) {
			t.Errorf("%q became %q", address, folded)
		}
		if again, ok := foldEmail(folded); !ok || again != folded {
			t.Errorf("%q, then %q", folded, again)
		}
	})
}

func TestEmailDigest(t *testing.T) {
	a, b := &cache.Keys{Random: []byte("a")}, &cache.Keys{Random: []byte("b")}
	if emailDigest(a, "Ada@example.com") != emailDigest(a, "ada@EXAMPLE.com") {
		t.Error("case counts")
	}
	if emailDigest(a, "ada@example.com") == emailDigest(b, "ada@example.com") {
		t.Error("the key does not count")
	}
	if d := emailDigest(a, "ada@example.com@x"); d != (cache.EmailDigest{}) {
		t.Errorf("%x stands for no address", d)
	}
}

// A verified e-mail makes the customer without external id the user's: access,
// and control.
func TestLinkByEmail(t *testing.T) {
	var calls atomic.Int64
	s := newShop(t, box.Options{}, linkingEmail, func(c *Config) { c.OnCall = func(polar.Call) { calls.Add(1) } }).connect()
	s.sync()
	calls.Store(0)
	guest := s.buysAlone("Ada@Example.com", s.pro.ID)
	for name, v := range map[string]Visitor{
		"not verified":  {User: ada, Email: "ada@example.com"},
		"none":          {User: ada, EmailVerified: true},
		"another":       verified(ada, "eve@example.com"),
		"with a dot":    verified(ada, "a.da@example.com"),
		"with a plus":   verified(ada, "ada+x@example.com"),
		"two addresses": verified(ada, "ada@example.com@example.com"),
		"with a blank":  verified(ada, "ada@example.com "),
		"lookalike":     verified(ada, "\u0430da@example.com"), // Cyrillic
	} {
		s.lets(v, "pro", false)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	s.lets(verified(ada, "aDA@example.COM"), "pro", true)
	if calls.Load() != 0 {
		t.Errorf("%d calls of Polar", calls.Load())
	}
	s.is(ada, "pro", true, entitlement.ReasonActive)
	s.lets(Visitor{User: ada}, "pro", true) // once is enough
	if a, err := s.g.Account(ada); err != nil || a.OwnCustomer() != guest.ID {
		t.Errorf("own customer %q, %v", a.OwnCustomer(), err)
	}
	if url, err := s.g.OpenPortal(t.Context(), ada, ""); err != nil || url == "" {
		t.Errorf("portal: %v", err)
	}
	if _, _, err := s.g.ChangeSubscription(t.Context(), ada, Change{Cancel: new(true)}); err != nil {
		t.Errorf("cancel: %v", err)
	}
	e, err := s.g.Explain(ada, time.Time{}, "pro")
	if err != nil || len(e.Plans) != 1 || len(e.Plans[0].Facts) != 1 || e.Plans[0].Facts[0].Source != entitlement.SourceEmail {
		t.Errorf("%+v, %v", e, err)
	}
	h, err := s.g.Show(ada)
	if err != nil || len(h.Links) != 0 || len(h.Customers) != 1 || !h.Customers[0].ByEmail {
		t.Errorf("%+v, %v", h, err)
	}
	s.secretEmails("ada@example.com", "aDA@example.COM")
}

// secretEmails wants no e-mail in the log, nor in the store.
func (s *shop) secretEmails(addresses ...string) {
	s.t.Helper()
	var file strings.Builder
	if err := s.config.Store.Backup(&file); err != nil {
		s.t.Fatal(err)
	}
	for _, e := range s.logs.All() {
		fmt.Fprintln(&file, e.Message, e.ContextMap())
	}
	for _, a := range addresses {
		if strings.Contains(strings.ToLower(file.String()), strings.ToLower(a)) {
			s.t.Errorf("%s is in the store or the log", a)
		}
	}
}

// Switched off, an e-mail means nothing and nothing of it is kept.
func TestNoLinkByEmail(t *testing.T) {
	s := newShop(t, box.Options{}).connect()
	s.sync()
	s.buysAlone("ada@example.com", s.pro.ID)
	s.lets(verified(ada, "ada@example.com"), "pro", false)
	if n, err := s.g.store.ForgetEmails(t.Context()); n != 0 || err != nil {
		t.Errorf("%d records of e-mails, %v", n, err)
	}
}

// Of two users with one e-mail the first has it; the second is told nothing, and
// the operator is.
func TestTwoUsersOfOneEmail(t *testing.T) {
	s := newShop(t, box.Options{}, linkingEmail).connect()
	s.sync()
	guest := s.buysAlone("ada@example.com", s.pro.ID)
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() { s.lets(verified(ada, "ada@example.com"), "pro", true) })
	}
	all.Wait()
	for range 3 {
		s.lets(verified(grace, "ada@example.com"), "pro", false)
	}
	s.lets(verified(ada, "ada@example.com"), "pro", true)
	if n := s.logs.FilterMessageSnippet("the first link stands").Len(); n != 1 {
		t.Errorf("logged %d times", n)
	}
	if e, err := s.g.Explain(grace, time.Time{}); err != nil || e.EmailTaken != guest.ID {
		t.Errorf("%+v, %v", e, err)
	}
	if e, err := s.g.Explain(ada, time.Time{}); err != nil || e.EmailTaken != "" {
		t.Errorf("%+v, %v", e, err)
	}
	// Forgotten, the first is no longer in the second's way.
	if _, err := s.g.Forget(t.Context(), ada); err != nil {
		t.Fatal(err)
	}
	s.is(ada, "pro", false, entitlement.ReasonNoSubscription)
	s.sync()
	s.lets(verified(grace, "ada@example.com"), "pro", true)
	s.is(ada, "pro", false, entitlement.ReasonNoSubscription)
	if e, err := s.g.Explain(grace, time.Time{}); err != nil || e.EmailTaken != "" {
		t.Errorf("%+v, %v", e, err)
	}
}

// An external id that comes later outranks the link, which is gone for good.
func TestExternalIDAfterEmail(t *testing.T) {
	s := newShop(t, box.Options{}, linkingEmail).connect()
	s.sync()
	guest := s.buysAlone("ada@example.com", s.pro.ID)
	s.lets(verified(ada, "ada@example.com"), "pro", true)
	if _, err := s.box.UpdateCustomer(guest.ID, box.CustomerUpdate{ExternalID: new(string(grace))}); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	s.is(grace, "pro", true, entitlement.ReasonActive)
	for range 2 {
		s.lets(verified(ada, "ada@example.com"), "pro", false)
		s.sync()
	}
}

func TestOperatorsLinkAfterEmail(t *testing.T) {
	s := newShop(t, box.Options{}, linkingEmail).connect()
	s.sync()
	guest := s.buysAlone("ada@example.com", s.pro.ID)
	s.lets(verified(ada, "ada@example.com"), "pro", true)
	if _, err := s.g.Link(t.Context(), grace, guest.ID, LinkOptions{NoPolar: true}); err != nil {
		t.Fatal(err)
	}
	s.is(grace, "pro", true, entitlement.ReasonActive)
	s.lets(verified(ada, "ada@example.com"), "pro", false)
}

// Made once: the customer's e-mail may change afterwards, and another's may
// become the one that it was.
func TestEmailChangesAfterLink(t *testing.T) {
	s := newShop(t, box.Options{}, linkingEmail).connect()
	s.sync()
	guest := s.buysAlone("ada@example.com", s.pro.ID)
	s.lets(verified(ada, "ada@example.com"), "pro", true)
	if _, err := s.box.UpdateCustomer(guest.ID, box.CustomerUpdate{Email: new("new@example.com")}); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	s.sync()
	s.lets(verified(ada, "ada@example.com"), "pro", true)
	s.lets(verified("usr_eve", "new@example.com"), "pro", false)
	s.buysAlone("ada@example.com", s.lifetime.ID) // whoever has the address now
	s.is(ada, "lifetime", false, entitlement.ReasonPlanRequired)
	if d := s.comes(verified("usr_heir", "ada@example.com"), "lifetime"); !d.Allowed {
		t.Errorf("%+v", d)
	}
}

// A deleted customer's link dies; one that is made again is linked anew.
func TestCustomerOfEmailDeleted(t *testing.T) {
	s := newShop(t, box.Options{}, linkingEmail).connect()
	s.sync()
	guest := s.buysAlone("ada@example.com", s.pro.ID)
	s.lets(verified(ada, "ada@example.com"), "pro", true)
	if err := s.box.DeleteCustomer(guest.ID); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	for range 2 {
		s.lets(verified(ada, "ada@example.com"), "pro", false)
		s.sync()
	}
	s.buysAlone("ada@example.com", s.pro.ID)
	s.lets(verified(grace, "ada@example.com"), "pro", true)
	s.lets(verified(ada, "ada@example.com"), "pro", false)
}

// Polar attaches a purchase to the customer with the e-mail, and leaves out the
// external id: metadata gives access, and the e-mail the control.
func TestEmailCollision(t *testing.T) {
	s := newShop(t, box.Options{}, linkingEmail).connect()
	s.sync()
	guest, err := s.box.CreateCustomer(box.Customer{Email: "ada@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	s.pays(s.opens(Visitor{User: ada}, s.pro.ID), "ada@example.com")
	s.box.Settle()
	s.is(ada, "pro", true, entitlement.ReasonActive)
	if _, err := s.g.OpenPortal(t.Context(), ada, ""); !errors.Is(err, ErrNotLinked) {
		t.Errorf("portal: %v", err)
	}
	s.lets(verified(ada, "ada@example.com"), "pro", true)
	if _, err := s.g.OpenPortal(t.Context(), ada, ""); err != nil {
		t.Errorf("portal: %v", err)
	}
	// Somebody else's purchase under it takes control away, not access.
	s.pays(s.opens(Visitor{User: grace}, s.lifetime.ID), "ada@example.com")
	s.box.Settle()
	s.is(grace, "lifetime", true, entitlement.ReasonPurchased)
	if h, err := s.g.Show(ada); err != nil || h.OwnCustomer() != "" || len(h.Customers) != 1 || h.Customers[0].ID != guest.ID || !h.Customers[0].Shared {
		t.Errorf("%+v, %v", h, err)
	}
	s.lets(verified(ada, "ada@example.com"), "pro", true)
}

// Who has a customer of their own is not linked to another, as long as it lives.
func TestOwnCustomerIsEnough(t *testing.T) {
	s := newShop(t, box.Options{}, linkingEmail).connect()
	s.sync()
	if _, err := s.box.Buy(ada, "work@example.com", s.free.ID); err != nil {
		t.Fatal(err)
	}
	s.buysAlone("ada@example.com", s.pro.ID)
	if d := s.comes(verified(ada, "ada@example.com"), "pro"); d.Allowed || d.Reason != entitlement.ReasonPlanRequired {
		t.Errorf("%+v", d)
	}
	own, _ := s.box.CustomerByExternalID(ada)
	if err := s.box.DeleteCustomer(own.ID); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	s.lets(verified(ada, "ada@example.com"), "pro", true)
}

// Switched on in a store that is there, a sync learns the e-mails first, and
// nobody who has paid is told to pay meanwhile. Switched off, nothing is left.
func TestSwitchLinkEmail(t *testing.T) {
	s := newShop(t, box.Options{})
	s.buysAlone("ada@example.com", s.pro.ID)
	s.buysAlone("grace@example.com", s.pro.ID)
	s.buysAlone("eve@example.com", s.pro.ID)
	s.box.Settle()
	s.sync()

	s = s.again(linkingEmail)
	if err := s.g.recallSync(); err != nil {
		t.Fatal(err)
	}
	if s.g.synced() {
		t.Error("e-mails were never read, and nobody is asked about")
	}
	s.lets(verified(ada, "Ada@example.com"), "pro", true) // by a look-up
	s.lets(verified("usr_free", "free@example.com"), "pro", false)
	s.box.SetTrouble(box.Trouble{HTML: true})
	if d := s.comes(verified(grace, "grace@example.com"), "pro"); d.Reason != entitlement.ReasonUnavailable {
		t.Errorf("nobody was asked: %+v", d)
	}
	s.box.SetTrouble(box.Trouble{})
	if r := s.sync(); !r.Emails || r.Missing+r.Wrong+r.Extra != 0 {
		t.Errorf("%+v", r)
	}
	s.lets(verified(grace, "grace@example.com"), "pro", true)

	s = s.again() // on still
	if err := s.g.recallSync(); err != nil || !s.g.synced() {
		t.Errorf("synced again, %v", err)
	}
	s.is(grace, "pro", true, entitlement.ReasonActive)
	s.lets(verified("usr_eve", "eve@example.com"), "pro", true)

	s.buysAlone("late@example.com", s.pro.ID)
	s.sync()
	s = s.again(func(c *Config) { c.LinkEmail = false })
	s.lets(verified("usr_late", "late@example.com"), "pro", false) // whatever is still there
	s.g.forgetEmails(t.Context())
	if n, err := s.g.store.ForgetEmails(t.Context()); n != 0 || err != nil {
		t.Errorf("%d records of e-mails are left, %v", n, err)
	}
	if err := s.g.recallSync(); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{ada, grace, "usr_eve"} {
		s.lets(verified(user, "ada@example.com"), "pro", false)
	}
	if r := s.sync(); r.Emails || r.Missing+r.Wrong+r.Extra != 0 {
		t.Errorf("%+v", r)
	}

	s = s.again(linkingEmail)
	if err := s.g.recallSync(); err != nil || s.g.synced() {
		t.Errorf("not synced again, %v", err)
	}
	s.sync()
	s.lets(verified(ada, "ada@example.com"), "pro", true)
}

// The start of a gateway removes what was left behind.
func TestStartForgetsEmails(t *testing.T) {
	s := newShop(t, box.Options{}, linkingEmail).connect()
	s.sync()
	s.buysAlone("ada@example.com", s.pro.ID)
	s.lets(verified(ada, "ada@example.com"), "pro", true)
	s = s.again(func(c *Config) { c.LinkEmail, c.Syncing.Off = false, true })
	if err := s.g.Start(); err != nil {
		t.Fatal(err)
	}
	s.g.working.Wait() // nothing else is to be done
	s.is(ada, "pro", false, entitlement.ReasonNoSubscription)
	s.g.Stop()
	if s.logs.FilterMessageSnippet("link email is off").Len() != 1 {
		t.Error("nothing is said")
	}
}

// What cannot be written is not known, and who is let in by what is known stays.
func TestLinkCannotBeWritten(t *testing.T) {
	s := newShop(t, box.Options{}, linkingEmail).connect()
	s.sync()
	s.buysAlone("ada@example.com", s.pro.ID)
	if _, err := s.g.GivePass(t.Context(), grace, "pro", time.Time{}, ""); err != nil {
		t.Fatal(err)
	}
	s.g.end() // no time left
	if a, err := s.g.AccountOf(verified(ada, "ada@example.com")); err == nil {
		t.Errorf("%+v", a)
	}
	if _, err := s.g.AccountOf(verified(grace, "ada@example.com")); err != nil {
		t.Error(err)
	}
}

// Where the e-mail is learnt from: each object that tells it, by the row of the
// customer.
func TestEmailFacts(t *testing.T) {
	row := func(n int) string { return bought.Add(time.Duration(n) * time.Second).Format(time.RFC3339Nano) }
	customerAt := func(n int, more string) string {
		return fmt.Sprintf(`{"id":%q,"created_at":%q,"modified_at":%q,"organization_id":%q,%s}`, customer, row(0), row(n), acme, more)
	}
	whole := func(n int, more string) []byte {
		return fmt.Appendf(nil, `{"type":"customer.updated","timestamp":%q,"data":%s}`, row(n), customerAt(n, more))
	}
	nested := func(n int, customer string) []byte {
		return fmt.Appendf(nil, `{"type":"order.updated","timestamp":%q,"data":{"id":"o","created_at":%q,"modified_at":%q,"status":"paid",
			"customer_id":"1509bb0a-9bf1-4331-8a11-8783593942a4","product_id":%q,"customer":%s}}`, row(n), row(0), row(n), lifetimeProduct, customer)
	}
	const adas, eves = `"email":"ada@example.com"`, `"email":"eve@example.com"`
	for _, tt := range []struct {
		name   string
		bodies [][]byte
		opens  string // by whose e-mail
	}{
		{"a customer's", [][]byte{nested(1, "null"), whole(2, adas)}, "ada"},
		{"a nested one's", [][]byte{nested(1, customerAt(1, adas))}, "ada"},
		{"a nested one that is older", [][]byte{whole(3, adas), nested(4, customerAt(2, eves))}, "ada"},
		{"a nested one that is newer", [][]byte{whole(3, adas), nested(4, customerAt(4, eves))}, "eve"},
		{"a newer nested one, then an older customer", [][]byte{nested(4, customerAt(4, eves)), whole(3, adas)}, "eve"},
		{"null, later", [][]byte{nested(1, customerAt(1, adas)), whole(3, `"email":null`)}, ""},
		{"one that is none, later", [][]byte{nested(1, customerAt(1, adas)), whole(3, `"email":"ada@example.com@x"`)}, ""},
		{"of a nested one without a time", [][]byte{nested(1, fmt.Sprintf(`{"id":%q,%s}`, customer, adas))}, ""},
		{"of a nested one from the future", [][]byte{nested(1, strings.Replace(customerAt(1, adas), `"modified_at":"2026`, `"modified_at":"2036`, 1))}, ""},
		{"with an external id", [][]byte{nested(1, customerAt(1, adas+`,"external_id":"other"`))}, ""},
		{"deleted", [][]byte{nested(1, "null"), whole(2, adas+fmt.Sprintf(`,"deleted_at":%q`, row(2)))}, ""},
		{"nested and deleted", [][]byte{nested(1, customerAt(1, adas+fmt.Sprintf(`,"deleted_at":%q`, row(1))))}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, linkingEmail)
			b.now = b.now.Add(time.Minute)
			for _, body := range tt.bodies {
				b.takes(body, ResultApplied)
			}
			for _, who := range []string{"eve", "ada"} {
				if _, err := b.g.AccountOf(verified(who, who+"@example.com")); err != nil {
					t.Fatal(err)
				}
				if open := b.decide(who, "lifetime").Allowed; open != (who == tt.opens) {
					t.Errorf("%s: %v", who, open)
				}
			}
		})
	}
}

// BenchmarkRefusedByEmail is what somebody with a verified e-mail costs who has
// bought nothing.
func BenchmarkRefusedByEmail(b *testing.B) {
	s := newBench(b, linkingEmail, withStore(cache.New(filepath.Join(b.TempDir(), "polar.db"))))
	defer s.store.Close()
	for b.Loop() {
		if _, err := s.g.AccountOf(verified("free", "free@example.com")); err != nil {
			b.Fatal(err)
		}
	}
}
