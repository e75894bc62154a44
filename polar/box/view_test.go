package box

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

// forget takes away what the lists have remembered.
func (s *shop) forget() {
	s.subs.shown, s.customers.shown = view[Subscription]{}, view[Customer]{}
	s.orders.shown, s.grants.shown = view[Order]{}, view[Grant]{}
}

// Whatever happens, a list that remembers shows what one shows that does not:
// also what a lagging replica sees, and what becomes visible late.
func TestListsAreNeverOld(t *testing.T) {
	s := newShop(t, Options{})
	c := s.client()
	random := rand.New(rand.NewPCG(4, 2))
	someone := func() Customer {
		all := s.AllCustomers()
		return all[random.IntN(len(all))]
	}
	name := func(n int) *string { name := fmt.Sprint("n", n); return &name }
	deeds := []func(int){
		func(i int) { _, _ = s.Buy(fmt.Sprint("usr_", i), fmt.Sprintf("u%d@example.org", i), s.pro.ID) },
		func(i int) { _, _ = s.UpdateCustomer(someone().ID, CustomerUpdate{Name: name(i), Email: name(-i)}) },
		func(int) { _ = s.DeleteCustomer(someone().ID) },
		func(int) {
			for _, x := range s.Subscriptions(someone().ID) {
				_, _ = s.Revoke(x.ID)
			}
		},
		func(int) { s.CommitLate(time.Duration(random.IntN(3)) * 20 * time.Second) },
		func(int) { s.SetTrouble(Trouble{Lag: time.Duration(random.IntN(3)) * 10 * time.Second}) },
		func(int) { s.Advance(time.Duration(random.IntN(30)) * time.Second) },
		func(int) {},
	}
	read := func() (lists []map[string]any) { // one of each table
		for _, list := range []string{
			"subscriptions/?status=active&sorting=customer", "customers/?active=true", "orders/?external_customer_id=usr_0", "benefit-grants/?is_granted=true",
		} {
			lists = append(lists, c.get("/v1/"+list))
		}
		return lists
	}
	deeds[0](0)
	for i := range 50 {
		deeds[random.IntN(len(deeds))](i)
		remembered := read()
		s.forget()
		if anew := read(); !reflect.DeepEqual(remembered, anew) {
			t.Fatalf("%d:\n got %v\nwant %v", i, remembered, anew)
		}
	}
}

// Pages of one list are cut from what was sorted once.
func TestListsAreSortedOnce(t *testing.T) {
	s := newShop(t, Options{})
	c := s.client()
	if err := s.Populate(5, s.pro.ID); err != nil {
		t.Fatal(err)
	}
	page := func(query string) (*Subscription, map[string]any) {
		t.Helper()
		list := c.get("/v1/subscriptions/?sorting=started_at&limit=2&" + query)
		return s.subs.shown.rows[2], list
	}
	third, _ := page("page=1")
	same, second := page("page=2")
	if items := second["items"].([]any); same != third || items[0].(map[string]any)["id"] != third.ID {
		t.Error("the second page is of another list")
	}
	same, later := page("started_after=" + stamp(*third.StartedAt))
	if same != third || total(later) != 2 {
		t.Error(later)
	}
}
