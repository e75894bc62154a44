package cache

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

var lawUsers = []string{"alice", "bob", "carol", "dave"}

// state is an object of Polar's as it was from one transaction on.
type state struct {
	visible time.Time // when others see the transaction
	fact    Facts     // the one object
}

// polarWorld is a Polar whose truth changes, and everything that it says.
type polarWorld struct {
	t     *rapid.T
	now   time.Time
	ids   []string // in the order in which they came to be
	past  map[string][]state
	truth mirror
	said  []*Facts
	own   []*Facts // what the gateway itself wrote
	// sweeps says that some of what was read, was read by a sync.
	sweeps bool
	// email is whose e-mail a customer has, steady that none ever changes.
	email  map[string]string
	steady bool
}

// stamp is a copy of facts as told at a moment.
func stamp(f *Facts, asOf time.Time) *Facts {
	c := Facts{
		Organization: f.Organization, Sweep: f.Sweep, Names: slices.Clone(f.Names), Customers: slices.Clone(f.Customers),
		Subscriptions: slices.Clone(f.Subscriptions), Orders: slices.Clone(f.Orders),
		Grants: slices.Clone(f.Grants), Refunds: slices.Clone(f.Refunds), Emails: slices.Clone(f.Emails),
		Members: slices.Clone(f.Members), Seats: slices.Clone(f.Seats),
	}
	for i := range c.Members {
		c.Members[i].Version.AsOf = asOf
	}
	for i := range c.Seats {
		c.Seats[i].Version.AsOf = asOf
		if c.Seats[i].Claimed {
			c.Seats[i].ClaimedIn.AsOf = asOf
		}
	}
	for i := range c.Customers {
		c.Customers[i].Version.AsOf = asOf
	}
	for i := range c.Subscriptions {
		c.Subscriptions[i].Version.AsOf = asOf
	}
	for i := range c.Orders {
		c.Orders[i].Version.AsOf = asOf
	}
	for i := range c.Grants {
		c.Grants[i].Version.AsOf = asOf
	}
	for i := range c.Refunds {
		c.Refunds[i].Version.AsOf = asOf
	}
	return &c
}

func merge(into, f *Facts) {
	into.Names = append(into.Names, f.Names...)
	into.Customers = append(into.Customers, f.Customers...)
	into.Subscriptions = append(into.Subscriptions, f.Subscriptions...)
	into.Orders = append(into.Orders, f.Orders...)
	into.Grants = append(into.Grants, f.Grants...)
	into.Refunds = append(into.Refunds, f.Refunds...)
	into.Emails = append(into.Emails, f.Emails...)
	into.Members = append(into.Members, f.Members...)
	into.Seats = append(into.Seats, f.Seats...)
}

func (w *polarWorld) chance(percent int) bool {
	return rapid.IntRange(1, 100).Draw(w.t, "chance") <= percent
}

func pick[T any](w *polarWorld, from []T) T {
	return from[rapid.IntRange(0, len(from)-1).Draw(w.t, "pick")]
}

// happened records a transaction on one object, and says it as a webhook. half
// is a state inside the transaction that was said, too; nobody reads it.
func (w *polarWorld) happened(id string, fact Facts, half *Facts) {
	visible := w.now.Add(time.Duration(rapid.IntRange(0, 120).Draw(w.t, "delay")) * time.Second)
	past := w.past[id]
	if past == nil {
		w.ids = append(w.ids, id)
	} else if last := past[len(past)-1].visible; last.After(visible) {
		visible = last // the row was locked
	}
	w.past[id] = append(past, state{visible, fact})
	if half != nil {
		w.said = append(w.said, stamp(half, w.now.Add(time.Microsecond)))
	}
	said := stamp(&fact, w.now.Add(2*time.Microsecond))
	for _, customer := range w.customersOf(&fact) {
		if c := w.truth.customers[customer]; c.DeletedAt.IsZero() {
			said.Names = append(said.Names, Name{Customer: c.ID, ExternalID: c.ExternalID})
			said.Emails = append(said.Emails, w.emailOf(&c)...)
		}
	}
	for _, s := range fact.Seats { // who has it is told with it, as of the row
		if m, known := w.truth.members[s.MemberID]; known {
			said.Members = append(said.Members, stamp(&Facts{Members: []entitlement.Member{m}}, time.Time{}).Members...)
		}
	}
	if w.chance(30) {
		said.Owners = slices.Clone(said.Members)
	}
	if w.chance(50) {
		said.Organization = testOwner.Organization
	}
	w.said = append(w.said, said)
}

func (w *polarWorld) customersOf(f *Facts) (ids []string) {
	for _, s := range f.Subscriptions {
		ids = append(ids, s.CustomerID)
	}
	for _, o := range f.Orders {
		ids = append(ids, o.CustomerID)
	}
	for _, g := range f.Grants {
		ids = append(ids, g.CustomerID)
	}
	return ids
}

// freeUsers are those whose external id no living customer has.
func (w *polarWorld) freeUsers() []string {
	free := slices.Clone(lawUsers)
	for _, c := range w.truth.customers {
		if c.DeletedAt.IsZero() {
			free = slices.DeleteFunc(free, func(u string) bool { return u == c.ExternalID })
		}
	}
	return free
}

func keys[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }

func (w *polarWorld) row() entitlement.Version { return entitlement.Version{Row: w.now} }

func (w *polarWorld) changeCustomer() {
	c := entitlement.Customer{ID: fmt.Sprintf("c%d", len(w.truth.customers))}
	if known := keys(w.truth.customers); len(known) > 0 && w.chance(60) {
		c = w.truth.customers[pick(w, known)]
		if c.ExternalID != "" && c.DeletedAt.IsZero() && w.chance(50) {
			c.DeletedAt = w.now
		}
	}
	if free := w.freeUsers(); c.ExternalID == "" && len(free) > 0 && w.chance(60) {
		c.ExternalID = pick(w, free)
	}
	c.Version = w.row()
	w.truth.customers[c.ID] = c
	if _, known := w.email[c.ID]; !known || !w.steady && w.chance(30) {
		w.email[c.ID] = pick(w, append(lawUsers, ""))
	}
	w.happened(c.ID, Facts{Customers: []entitlement.Customer{c}, Emails: w.emailOf(&c)}, nil)
}

// emailOf is what Polar tells of a customer's e-mail now.
func (w *polarWorld) emailOf(c *entitlement.Customer) []Email {
	if !emailCounts(c.ExternalID, !c.DeletedAt.IsZero()) {
		return nil
	}
	return []Email{{ID: c.ID, Digest: digested(w.email[c.ID]), Row: c.Version.Row}}
}

// proofs are the users who come with their verified e-mails.
func (w *polarWorld) proofs() (facts []*Facts) {
	for _, user := range lawUsers {
		facts = append(facts, proven(user, user))
	}
	return facts
}

// link works out whose customers are by e-mail once all is told.
func (w *polarWorld) link() {
	w.truth.emailLinks = make(map[string]string)
	for id, c := range w.truth.customers {
		if user := w.email[id]; user != "" && emailCounts(c.ExternalID, !c.DeletedAt.IsZero()) && w.truth.links[id] == "" {
			w.truth.emailLinks[id] = user
		}
	}
	for id, m := range w.truth.members {
		if user := w.email[id]; user != "" && emailCounts(m.ExternalID, m.Deleted) && w.truth.links[id] == "" {
			w.truth.emailLinks[id] = user
		}
	}
}

// bought draws where a purchase came from.
func (w *polarWorld) bought() (customer, metadata, checkout string) {
	customer = pick(w, keys(w.truth.customers))
	switch rapid.IntRange(0, 3).Draw(w.t, "bought by") {
	case 0:
		metadata = pick(w, lawUsers)
	case 1:
		checkout = pick(w, append(keys(w.truth.checkouts), "of-others"))
	}
	return customer, metadata, checkout
}

var lawStatuses = []entitlement.Status{
	entitlement.StatusIncomplete, entitlement.StatusTrialing, entitlement.StatusActive, entitlement.StatusPastDue,
	entitlement.StatusCanceled, entitlement.StatusUnpaid, entitlement.StatusPaused,
}

func (w *polarWorld) changeSubscription() {
	if len(w.truth.customers) == 0 {
		return
	}
	s := entitlement.Subscription{ID: fmt.Sprintf("s%d", len(w.truth.subscriptions)), ProductID: "p1"}
	if known := keys(w.truth.subscriptions); len(known) > 0 && w.chance(60) {
		s = w.truth.subscriptions[pick(w, known)]
	} else {
		s.CustomerID, s.MetadataUser, s.CheckoutID = w.bought()
	}
	s.Version = w.row()
	s.PeriodEnd = w.now.Add(30 * 24 * time.Hour)
	s.CancelAtPeriodEnd = w.chance(30)
	s.Status = pick(w, lawStatuses)
	half := s
	s.Status = pick(w, lawStatuses)
	w.truth.subscriptions[s.ID] = s
	var also *Facts
	if w.chance(30) {
		also = &Facts{Subscriptions: []entitlement.Subscription{half}}
	}
	w.happened(s.ID, Facts{Subscriptions: []entitlement.Subscription{s}}, also)
}

func (w *polarWorld) changeOrder() {
	if len(w.truth.customers) == 0 {
		return
	}
	o := entitlement.Order{ID: fmt.Sprintf("o%d", len(w.truth.orders)), ProductID: "p2", Status: "pending"}
	known, subscriptions := keys(w.truth.orders), keys(w.truth.subscriptions)
	switch {
	case len(known) > 0 && w.chance(40):
		o = w.truth.orders[pick(w, known)]
		o.Status = pick(w, []entitlement.OrderStatus{entitlement.OrderPaid, entitlement.OrderPartiallyRefunded, entitlement.OrderRefunded})
	case len(subscriptions) > 0 && w.chance(50):
		s := w.truth.subscriptions[pick(w, subscriptions)]
		o.SubscriptionID, o.CustomerID, o.MetadataUser = s.ID, s.CustomerID, s.MetadataUser
	default:
		o.CustomerID, o.MetadataUser, o.CheckoutID = w.bought()
	}
	o.Version = w.row()
	w.truth.orders[o.ID] = o
	w.happened(o.ID, Facts{Orders: []entitlement.Order{o}}, nil)
}

func (w *polarWorld) changeGrant() {
	g := entitlement.Grant{ID: fmt.Sprintf("g%d", len(w.truth.grants)), BenefitID: "b", Granted: true}
	known, subscriptions, orders := keys(w.truth.grants), keys(w.truth.subscriptions), keys(w.truth.orders)
	switch {
	case len(known) > 0 && w.chance(40):
		g = w.truth.grants[pick(w, known)]
		if g.MemberID != "" && w.chance(20) {
			g.ForMember = !g.ForMember // the member has become the owner, or was
		} else {
			g.Revoked, g.RevokedAt = true, w.now
		}
	case len(subscriptions) > 0 && w.chance(60):
		s := w.truth.subscriptions[pick(w, subscriptions)]
		g.SubscriptionID, g.CustomerID = s.ID, s.CustomerID
	case len(orders) > 0:
		o := w.truth.orders[pick(w, orders)]
		if o.SubscriptionID != "" {
			return
		}
		g.OrderID, g.CustomerID = o.ID, o.CustomerID
	default:
		return
	}
	if members := keys(w.truth.members); g.MemberID == "" && !g.Revoked && len(members) > 0 && w.chance(40) {
		g.MemberID, g.ForMember = pick(w, members), true
	}
	g.Version = w.row()
	w.truth.grants[g.ID] = g
	w.happened(g.ID, Facts{Grants: []entitlement.Grant{g}}, nil)
}

func (w *polarWorld) changeRefund() {
	r := entitlement.Refund{ID: fmt.Sprintf("r%d", len(w.truth.refunds))}
	known, orders := keys(w.truth.refunds), keys(w.truth.orders)
	switch {
	case len(known) > 0 && w.chance(50):
		r = w.truth.refunds[pick(w, known)]
		r.Succeeded = true
	case len(orders) > 0:
		o := w.truth.orders[pick(w, orders)]
		r.OrderID, r.CustomerID = o.ID, o.CustomerID
		if r.Disputed = w.chance(50); !r.Disputed {
			r.SubscriptionID = o.SubscriptionID
		}
	default:
		return
	}
	r.Version = w.row()
	w.truth.refunds[r.ID] = r
	w.happened(r.ID, Facts{Refunds: []entitlement.Refund{r}}, nil)
}

// changeMember makes a member, gives one a name, deletes one, or makes one the
// owner.
func (w *polarWorld) changeMember() {
	if len(w.truth.customers) == 0 {
		return
	}
	m := entitlement.Member{ID: fmt.Sprintf("m%d", len(w.truth.members)), CustomerID: pick(w, keys(w.truth.customers)), Role: "member"}
	if known := keys(w.truth.members); len(known) > 0 && w.chance(50) {
		m = w.truth.members[pick(w, known)]
	}
	if m.ExternalID == "" && w.chance(50) {
		m.ExternalID = pick(w, lawUsers)
	}
	for id, other := range w.truth.members {
		if other.CustomerID == m.CustomerID && other.Role == "owner" && id != m.ID && w.chance(50) {
			other.Role = "member"
			w.memberIs(other)
			m.Role = "owner"
			break
		}
	}
	switch {
	case m.Role != "owner" && w.chance(30):
		m.Deleted = true
	case w.chance(30):
		m.Role = "owner"
	}
	w.memberIs(m)
}

func (w *polarWorld) memberIs(m entitlement.Member) {
	m.Version = w.row()
	w.truth.members[m.ID] = m
	if _, known := w.email[m.ID]; !known || !w.steady && w.chance(30) {
		w.email[m.ID] = pick(w, append(lawUsers, ""))
	}
	facts := Facts{Members: []entitlement.Member{m}}
	if emailCounts(m.ExternalID, m.Deleted) {
		facts.Emails = []Email{{ID: m.ID, Member: true, Digest: digested(w.email[m.ID]), Row: m.Version.Row}}
	}
	w.happened(m.ID, facts, nil)
}

// changeSeat offers a seat, or has one claimed or revoked. Of a revoked one
// Polar no longer says whose it was; the truth knows.
func (w *polarWorld) changeSeat() {
	s := entitlement.Seat{ID: fmt.Sprintf("p%d", len(w.truth.seats))}
	known, subscriptions, orders := keys(w.truth.seats), keys(w.truth.subscriptions), keys(w.truth.orders)
	switch {
	case len(known) > 0 && w.chance(70):
		s = w.truth.seats[pick(w, known)]
	case len(subscriptions) > 0 && w.chance(70):
		s.SubscriptionID = pick(w, subscriptions)
	case len(orders) > 0:
		if s.OrderID = pick(w, orders); w.truth.orders[s.OrderID].SubscriptionID != "" {
			return
		}
	default:
		return
	}
	s.Version = w.row()
	s.Claimed, s.Revoked, s.RevokedAt = false, false, time.Time{}
	switch rapid.IntRange(0, 4).Draw(w.t, "seat") {
	case 0: // offered, perhaps again
	case 1:
		s.Revoked, s.RevokedAt = true, w.now
	default:
		s.Claimed, s.ClaimedIn = true, s.Version
		s.CustomerID, s.MemberID = pick(w, keys(w.truth.customers)), ""
		if members := keys(w.truth.members); len(members) > 0 && w.chance(80) {
			s.MemberID = pick(w, members)
		}
	}
	w.truth.seats[s.ID] = s
	told := s
	if !s.Claimed {
		told.CustomerID, told.MemberID, told.ClaimedIn = "", "", entitlement.Version{}
	}
	w.happened(s.ID, Facts{Seats: []entitlement.Seat{told}}, nil)
}

// claims are the states that told who has claimed each seat last: when they are
// lost, no read brings them back.
func (w *polarWorld) claims() (facts []*Facts) {
	for _, id := range keys(w.truth.seats) {
		past := w.past[id]
		for i := len(past) - 1; i >= 0; i-- {
			if past[i].fact.Seats[0].Claimed {
				facts = append(facts, stamp(&past[i].fact, w.now.Add(time.Minute)))
				break
			}
		}
	}
	return facts
}

// read says what a replica that lags behind shows of some objects now.
func (w *polarWorld) read() {
	seen := w.now.Add(-time.Duration(rapid.IntRange(0, 300).Draw(w.t, "lag")) * time.Second)
	var page Facts
	for _, id := range w.ids {
		past := w.past[id]
		for i := len(past) - 1; i >= 0; i-- {
			if !past[i].visible.After(seen) {
				if w.chance(70) {
					merge(&page, &past[i].fact)
				}
				break
			}
		}
	}
	page.Sweep = w.sweeps && w.chance(50)
	w.said = append(w.said, stamp(&page, w.now))
}

// sync reads Polar's truth, each object alone.
func (w *polarWorld) sync() (facts []*Facts) {
	asOf := w.now.Add(time.Hour)
	for _, id := range w.ids {
		past := w.past[id]
		f := stamp(&past[len(past)-1].fact, asOf)
		f.Sweep = w.sweeps && w.chance(70)
		facts = append(facts, f)
	}
	return facts
}

// sweep is a sync that writes nothing without need.
func (w *polarWorld) sweep() []*Facts {
	facts := w.sync()
	for _, f := range facts {
		f.Sweep = true
	}
	return facts
}

// view is how accounts are compared: a sweep leaves alone what was told when.
func (w *polarWorld) view(a *entitlement.Account) string {
	if w.sweeps {
		return viewWithoutAsOf(a)
	}
	return view(a)
}

func drawWorld(t *rapid.T) *polarWorld {
	w := &polarWorld{
		t: t, now: testOrigin, sweeps: rapid.Bool().Draw(t, "sweeps"), past: make(map[string][]state),
		email: make(map[string]string), steady: rapid.Bool().Draw(t, "steady"),
		truth: mirror{
			customers: map[string]entitlement.Customer{}, subscriptions: map[string]entitlement.Subscription{},
			orders: map[string]entitlement.Order{}, grants: map[string]entitlement.Grant{},
			members: map[string]entitlement.Member{}, seats: map[string]entitlement.Seat{},
			refunds: map[string]entitlement.Refund{}, checkouts: map[string]Checkout{}, links: map[string]string{},
		},
	}
	for i, user := range lawUsers[:2] { // opened before anything can be bought in it
		c := Checkout{ID: fmt.Sprintf("k%d", i), User: user, OpenedAt: at(-i)}
		w.truth.checkouts[c.ID] = c
		w.own = append(w.own, &Facts{Checkouts: []Checkout{c}})
	}
	w.truth.opened = w.truth.checkouts
	changes := []func(){w.changeCustomer, w.changeSubscription, w.changeOrder, w.changeGrant, w.changeRefund, w.changeMember, w.changeSeat, w.read}
	for range rapid.IntRange(5, 60).Draw(t, "changes") {
		w.now = w.now.Add(time.Duration(rapid.IntRange(10, 90_000_000).Draw(t, "passes")) * time.Microsecond)
		pick(w, changes)()
	}
	for _, id := range keys(w.truth.checkouts) { // Polar's own word of them knows no user
		w.said = append(w.said, &Facts{Checkouts: []Checkout{{ID: id}}})
	}
	for _, id := range append(keys(w.truth.customers), keys(w.truth.members)...) {
		if w.chance(15) {
			w.truth.links[id] = pick(w, lawUsers)
		}
	}
	w.link()
	return w
}

// linksSaid is the operator's word, which comes at any time.
func (w *polarWorld) linksSaid() (facts []*Facts) {
	for _, id := range keys(w.truth.links) {
		facts = append(facts, &Facts{Links: []Link{{Customer: id, User: w.truth.links[id]}}})
	}
	return facts
}

// deliver commits facts in batches of random size.
func deliver(t *rapid.T, s *Store, facts []*Facts) (sum Applied) {
	for len(facts) > 0 {
		n := min(len(facts), rapid.IntRange(1, 8).Draw(t, "batch"))
		batch := make([]*change, n)
		for i := range batch {
			batch[i] = &change{facts: facts[i]}
		}
		s.commit(batch)
		for _, c := range batch {
			if c.err != nil {
				t.Fatalf("committing: %v", c.err)
			}
			a := c.applied
			if a.New != a.Missing+a.Wrong {
				t.Errorf("%+v does not add up", a)
			}
			sum.New, sum.Missing, sum.Wrong = sum.New+a.New, sum.Missing+a.Missing, sum.Wrong+a.Wrong
			sum.Stale, sum.Same = sum.Stale+a.Stale, sum.Same+a.Same
		}
		facts = facts[n:]
	}
	return sum
}

func twice(t *rapid.T, facts []*Facts) []*Facts {
	out := slices.Clone(facts)
	for _, f := range facts {
		if rapid.IntRange(0, 3).Draw(t, "doubled") == 0 {
			out = append(out, f)
		}
	}
	return out
}

func views(t tester, s *Store, how func(*entitlement.Account) string) string {
	out := ""
	for _, user := range lawUsers {
		out += how(account(t, s, user)) + "\n"
	}
	return out
}

// TestLawOfVersions: whatever was late, doubled, out of order, read from a
// replica that lags, or lost, one sync later the store is Polar's truth.
func TestLawOfVersions(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		heard := twice(t, w.said)
		heard = slices.DeleteFunc(heard, func(*Facts) bool { return w.chance(25) })
		heard = append(heard, w.linksSaid()...)
		heard = append(heard, w.claims()...)
		if w.steady { // whoever comes early is the one who comes late
			heard = append(heard, twice(t, w.proofs())...)
		}
		heard = rapid.Permutation(heard).Draw(t, "order")

		s, fresh := fastStore(t, dir), fastStore(t, dir)
		defer s.Close()
		defer fresh.Close()
		deliver(t, s, w.own)
		deliver(t, s, heard)
		deliver(t, s, rapid.Permutation(w.sync()).Draw(t, "sync"))
		deliver(t, s, w.proofs())

		deliver(t, fresh, slices.Concat(w.own, w.linksSaid(), w.claims(), w.sync(), w.proofs()))
		if got, want := views(t, s, w.view), views(t, fresh, w.view); got != want {
			t.Errorf("after all that:\n%s\nin order:\n%s", got, want)
		}
		for _, user := range lawUsers {
			if got, want := viewWithoutAsOf(account(t, s, user)), viewWithoutAsOf(w.truth.account(user)); got != want {
				t.Errorf("after all that:\n%s\nthe truth:\n%s", got, want)
			}
		}
		consistent(t, s, lawUsers...)
	})
}

// TestLawWithoutLoss: when nothing was lost, there is nothing to mend.
func TestLawWithoutLoss(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		heard := rapid.Permutation(append(twice(t, w.said), w.linksSaid()...)).Draw(t, "order")
		s := fastStore(t, dir)
		defer s.Close()
		deliver(t, s, w.own)
		deliver(t, s, heard)
		deliver(t, s, w.proofs())
		before := views(t, s, viewWithoutAsOf)
		for _, user := range lawUsers {
			if got, want := viewWithoutAsOf(account(t, s, user)), viewWithoutAsOf(w.truth.account(user)); got != want {
				t.Errorf("before a sync:\n%s\nthe truth:\n%s", got, want)
			}
		}
		content, id := dump(t, s), lastCommit(s)
		swept := w.sweep()
		if a := deliver(t, s, swept); a != (Applied{Same: len(swept)}) {
			t.Errorf("a sweep of %d objects found %+v", len(swept), a)
		}
		if diff := differences(content, dump(t, s)); diff != "" || lastCommit(s) != id {
			t.Errorf("a sweep that found nothing has written:\n%s", diff)
		}
		deliver(t, s, w.sync())
		if after := views(t, s, viewWithoutAsOf); after != before {
			t.Errorf("the sync changed\n%s\nto\n%s", before, after)
		}
	})
}

// TestLawOfContent: the same facts make the same file, in whatever order.
func TestLawOfContent(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		heard := append(slices.DeleteFunc(w.said, func(*Facts) bool { return w.chance(25) }), w.linksSaid()...)
		if w.steady {
			heard = append(heard, w.proofs()...)
		}
		a, b := fastStore(t, dir), fastStore(t, dir)
		defer a.Close()
		defer b.Close()
		for _, s := range []*Store{a, b} {
			deliver(t, s, w.own)
			deliver(t, s, rapid.Permutation(twice(t, heard)).Draw(t, "order"))
			deliver(t, s, w.proofs())
		}
		if diff := differences(dump(t, a), dump(t, b)); diff != "" && !w.sweeps {
			t.Errorf("two orders, two contents:\n%s", diff)
		}
		if got, want := views(t, a, w.view), views(t, b, w.view); got != want {
			t.Errorf("two orders:\n%s\nand\n%s", got, want)
		}
	})
}

// TestAppliedCounts: an older or equal version changes nothing, a newer one
// does; the row's time decides before the telling's.
func TestAppliedCounts(t *testing.T) {
	for _, kind := range []struct {
		name string
		of   func(v entitlement.Version, id string) *Facts
		held func(*Store) entitlement.Version
	}{
		{"customer", func(v entitlement.Version, id string) *Facts {
			return &Facts{Customers: []entitlement.Customer{{Version: v, ID: id, ExternalID: "u"}}}
		}, func(s *Store) entitlement.Version { return must(s.Account("u")).Customers[0].Version }},
		{"subscription", func(v entitlement.Version, id string) *Facts {
			return &Facts{Subscriptions: []entitlement.Subscription{{Version: v, ID: id, CustomerID: "c", MetadataUser: "u"}}}
		}, func(s *Store) entitlement.Version { return must(s.Account("u")).Subscriptions[0].Version }},
		{"order", func(v entitlement.Version, id string) *Facts {
			return &Facts{Orders: []entitlement.Order{{Version: v, ID: id, CustomerID: "c", MetadataUser: "u"}}}
		}, func(s *Store) entitlement.Version { return must(s.Account("u")).Orders[0].Version }},
		{"grant", func(v entitlement.Version, id string) *Facts {
			return &Facts{Grants: []entitlement.Grant{{Version: v, ID: id, CustomerID: "c"}}}
		}, func(s *Store) entitlement.Version { return must(s.Account("u")).Grants[0].Version }},
		{"refund", func(v entitlement.Version, id string) *Facts {
			return &Facts{
				Orders:  []entitlement.Order{{Version: rev(0), ID: "o", CustomerID: "c", MetadataUser: "u"}},
				Refunds: []entitlement.Refund{{Version: v, ID: id, OrderID: "o"}},
			}
		}, func(s *Store) entitlement.Version { return must(s.Account("u")).Refunds[0].Version }},
	} {
		t.Run(kind.name, func(t *testing.T) {
			s := testStore(t)
			if kind.name == "grant" { // has no other way to a user here
				apply(t, s, linked("c", "u"))
			}
			now := entitlement.Version{Row: at(10), AsOf: at(20)}
			for _, step := range []struct {
				told  string
				v     entitlement.Version
				isNew bool
			}{
				{"first", now, true},
				{"again", now, false},
				{"older row, told later", entitlement.Version{Row: at(9), AsOf: at(99)}, false},
				{"same row, told before", entitlement.Version{Row: at(10), AsOf: at(19)}, false},
				{"same row, told later", entitlement.Version{Row: at(10), AsOf: at(21)}, true},
				{"newer row, told before", entitlement.Version{Row: at(11), AsOf: at(1)}, true},
				{"a microsecond newer", entitlement.Version{Row: at(11).Add(time.Microsecond), AsOf: at(1)}, true},
			} {
				before := kindVersion(s, kind.held, step.told == "first")
				got := apply(t, s, kind.of(step.v, "x"))
				if (got.New > 0) != step.isNew && kind.name != "refund" || got.Foreign {
					t.Errorf("%s: %+v, want new %v", step.told, got, step.isNew)
				}
				want := before
				if step.isNew {
					want = step.v
				}
				if v := kind.held(s); v != want {
					t.Errorf("%s: %+v is held, want %+v", step.told, v, want)
				}
				if got.New+got.Stale != map[bool]int{false: 1, true: 2}[kind.name == "refund"] {
					t.Errorf("%s: %+v does not count each object once", step.told, got)
				}
			}
		})
	}
}

func kindVersion(s *Store, held func(*Store) entitlement.Version, first bool) entitlement.Version {
	if first {
		return entitlement.Version{}
	}
	return held(s)
}
