package box

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
	"time"
)

func sample(t *testing.T, name string) any {
	t.Helper()
	raw, err := os.ReadFile("../../testdata/polar/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var body struct{ Data any }
	if err := json.Unmarshal(raw, &body); err != nil {
		t.Fatal(err)
	}
	return body.Data
}

func TestPriceOfSeats(t *testing.T) {
	tiers := []SeatTier{{Min: 1, Max: 4, PerSeat: 1000}, {Min: 5, PerSeat: 800}}
	for _, x := range []struct {
		p     Price
		seats int
		want  int
	}{
		{Price{Amount: 1900}, 0, 1900},
		{Price{Amount: 1900}, 7, 1900},
		{Price{Tiers: tiers}, 1, 1000},
		{Price{Tiers: tiers}, 4, 4000},
		{Price{Tiers: tiers}, 5, 4000},
		{Price{Tiers: tiers, Graduated: true}, 4, 4000},
		{Price{Tiers: tiers, Graduated: true}, 5, 4800},
		{Price{Tiers: tiers, Graduated: true}, 7, 6400},
	} {
		if got := x.p.amount(x.seats); got != x.want {
			t.Errorf("%+v: %d seats cost %d", x.p, x.seats, got)
		}
	}
}

func TestSeatsAreBought(t *testing.T) {
	s := newShop(t, Options{})
	sub, acme := s.buySeats(s.team(), 5)
	s.news()
	if sub.Seats != 5 || sub.Amount != 6000 || acme.Type != "team" {
		t.Errorf("%+v", sub)
	}
	if len(s.Grants(acme.ID)) != 0 || len(s.Seats(sub.ID)) != 0 {
		t.Error("nothing is granted before a seat is claimed")
	}
	var active, paid map[string]any
	for _, e := range s.Events() {
		switch e.Type {
		case "subscription.active":
			active = fields(t, e)
		case "order.paid":
			paid = fields(t, e)
		}
	}
	if paid["seats"] != 5.0 || paid["net_amount"] != 6000.0 {
		t.Error(paid["seats"], paid["net_amount"])
	}
	if active["customer"].(map[string]any)["type"] != "team" {
		t.Error(active["customer"])
	}
	compare(t, "subscription.active.seats", sample(t, "subscription.active.seats"), any(active))
}

func TestSeatIsAssignedAndClaimed(t *testing.T) {
	s := newShop(t, Options{})
	sub, acme := s.buySeats(s.team(), 2)
	s.news()
	seat := must[Seat](t)(s.AssignSeat(SeatAssignment{SubscriptionID: sub.ID, Email: "Grace@acme.example"}))
	s.Settle()
	f := fields(t, s.expect("member.created", "customer_seat.assigned")[1])
	for name, want := range map[string]any{"status": "pending", "customer_id": acme.ID, "email": "Grace@acme.example", "member_id": nil, "member": nil, "claimed_at": nil} {
		if f[name] != want {
			t.Errorf("assigned: %s is %v", name, f[name])
		}
	}
	if s.granted(acme.ID) != 0 {
		t.Error("granted to nobody")
	}
	_, err := s.AssignSeat(SeatAssignment{SubscriptionID: sub.ID, Email: "grace@ACME.example"})
	refusal(t, err, 400, "SeatAlreadyAssigned")
	token, _ := s.Invitation(seat.ID)
	must[Seat](t)(s.ClaimSeat(token))
	s.Settle()
	events := s.expect("customer_seat.claimed", "benefit_grant.created")
	claimed, grant := fields(t, events[0]), fields(t, events[1])
	member := s.Members(acme.ID)[1]
	if claimed["member_id"] != member.ID || claimed["customer_id"] != acme.ID || claimed["member"].(map[string]any)["external_id"] != nil {
		t.Error(string(events[0].Data))
	}
	if grant["member_id"] != member.ID || grant["customer_id"] != acme.ID || grant["subscription_id"] != sub.ID {
		t.Error(string(events[1].Data))
	}
	compare(t, "seat_member", sample(t, "benefit_grant.created.seat_member"), any(grant))
	for range 2 { // a token is for one claim
		_, err = s.ClaimSeat(token)
		refusal(t, err, 400, "InvalidInvitationToken")
	}
}

func TestSeatClaimedAtOnce(t *testing.T) {
	s := newShop(t, Options{})
	sub, acme := s.buySeats(s.team(), 2)
	m := must[Member](t)(s.AddMember(Member{CustomerID: acme.ID, Email: "grace@acme.example", ExternalID: "usr_g"}))
	s.news()
	must[Seat](t)(s.AssignSeat(SeatAssignment{SubscriptionID: sub.ID, ExternalMemberID: "usr_g", Immediate: true}))
	s.Settle()
	f := fields(t, s.expect("customer_seat.claimed", "benefit_grant.created")[0])
	if f["member_id"] != m.ID || f["member"].(map[string]any)["external_id"] != "usr_g" || f["invitation_token_expires_at"] != nil {
		t.Error(f)
	}
}

func TestWhoCanHaveASeat(t *testing.T) {
	s := newShop(t, Options{})
	sub, acme := s.buySeats(s.team(), 2)
	must[Member](t)(s.AddMember(Member{CustomerID: acme.ID, Email: "grace@acme.example", ExternalID: "usr_g"}))
	for _, x := range []struct {
		a    SeatAssignment
		code int
		name string
	}{
		{SeatAssignment{SubscriptionID: sub.ID}, 400, "InvalidSeatAssignmentRequest"},
		{SeatAssignment{SubscriptionID: s.org.ID, Email: "a@b.example"}, 404, "ResourceNotFound"},
		{SeatAssignment{SubscriptionID: sub.ID, MemberID: s.org.ID}, 404, "ResourceNotFound"},
		{SeatAssignment{SubscriptionID: sub.ID, ExternalMemberID: "nobody"}, 404, "ResourceNotFound"},
		{SeatAssignment{SubscriptionID: sub.ID, ExternalMemberID: "usr_g", Email: "other@acme.example"}, 400, "InvalidSeatAssignmentRequest"},
	} {
		_, err := s.AssignSeat(x.a)
		refusal(t, err, x.code, x.name)
	}
	must[Seat](t)(s.AssignSeat(SeatAssignment{SubscriptionID: sub.ID, ExternalMemberID: "usr_n", Email: "new@acme.example"}))
	if m := s.Members(acme.ID)[2]; m.ExternalID != "usr_n" || m.Role != "member" {
		t.Errorf("%+v", m)
	}
	must[Seat](t)(s.AssignSeat(SeatAssignment{SubscriptionID: sub.ID, Email: "grace@acme.example"}))
	_, err := s.AssignSeat(SeatAssignment{SubscriptionID: sub.ID, Email: "third@acme.example"})
	refusal(t, err, 400, "SeatNotAvailable")
	if n := len(s.Members(acme.ID)); n != 3 {
		t.Error("a refused assignment must leave nobody:", n)
	}
}

func TestInvitationExpires(t *testing.T) {
	s := newShop(t, Options{})
	sub, _ := s.buySeats(s.team(), 1)
	seat := must[Seat](t)(s.AssignSeat(SeatAssignment{SubscriptionID: sub.ID, Email: "grace@acme.example"}))
	token, _ := s.Invitation(seat.ID)
	s.Advance(invitationTTL + time.Second)
	_, err := s.ClaimSeat(token)
	refusal(t, err, 400, "InvalidInvitationToken")
}

func TestSeatIsRevokedAndGivenToAnother(t *testing.T) {
	s := newShop(t, Options{})
	sub, acme := s.buySeats(s.team(), 1)
	seat := s.claimed(SeatAssignment{SubscriptionID: sub.ID, Email: "grace@acme.example"})
	s.news()
	must[Seat](t)(s.RevokeSeat(seat.ID))
	s.Settle()
	f := fields(t, s.expect("customer_seat.revoked", "benefit_grant.revoked")[0])
	for _, name := range []string{"customer_id", "member_id", "email"} {
		if f[name] != nil {
			t.Errorf("revoked: %s is %v", name, f[name])
		}
	}
	if f["status"] != "revoked" || f["revoked_at"] == nil || f["claimed_at"] == nil || f["member"].(map[string]any)["email"] != "grace@acme.example" {
		t.Error(f)
	}
	again := s.claimed(SeatAssignment{SubscriptionID: sub.ID, Email: "alan@acme.example"})
	if again.ID != seat.ID || s.granted(acme.ID) != 1 || !again.ModifiedAt.After(*seat.ModifiedAt) {
		t.Errorf("%+v", again)
	}
	if f := fields(t, s.expect("member.created", "customer_seat.assigned", "customer_seat.claimed", "benefit_grant.created")[1]); f["revoked_at"] != nil {
		t.Error(f)
	}
}

// What ends or halts the subscription takes all seats, and they stay away.
func TestSeatsGoWithTheSubscription(t *testing.T) {
	for name, x := range map[string]struct {
		grace int
		stop  func(*shop, Subscription, Customer)
		back  func(*shop, Subscription, Customer)
		kept  int
	}{
		"revoked": {stop: func(s *shop, sub Subscription, _ Customer) { s.Revoke(sub.ID) }},
		"ended": {stop: func(s *shop, sub Subscription, _ Customer) {
			s.Cancel(sub.ID, "", "")
			if len(s.Grants(sub.CustomerID)) == 0 || s.Seats(sub.ID)[0].Status != "claimed" {
				s.t.Error("a cancellation takes nothing before the end")
			}
			s.AdvanceTo(sub.CurrentPeriodEnd.Add(time.Minute))
		}},
		"paused": {
			stop: func(s *shop, sub Subscription, _ Customer) {
				s.Pause(sub.ID, nil)
				s.AdvanceTo(sub.CurrentPeriodEnd.Add(time.Minute))
			},
			back: func(s *shop, sub Subscription, _ Customer) { s.Resume(sub.ID) },
		},
		"past due": {
			stop: func(s *shop, sub Subscription, c Customer) {
				s.SetCard(c.ID, false)
				s.AdvanceTo(sub.CurrentPeriodEnd.Add(time.Minute))
			},
			back: func(s *shop, _ Subscription, c Customer) { s.UpdateCard(c.ID, true) },
		},
		"past due in grace": {
			grace: 7, kept: 2,
			stop: func(s *shop, sub Subscription, c Customer) {
				s.SetCard(c.ID, false)
				s.AdvanceTo(sub.CurrentPeriodEnd.Add(time.Minute))
			},
			back: func(s *shop, _ Subscription, c Customer) { s.UpdateCard(c.ID, true) },
		},
		"customer deleted": {stop: func(s *shop, _ Subscription, c Customer) { s.DeleteCustomer(c.ID) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, Options{GraceDays: x.grace})
			sub, acme := s.buySeats(s.team(), 3)
			s.claimed(SeatAssignment{SubscriptionID: sub.ID, Email: "grace@acme.example"})
			must[Seat](t)(s.AssignSeat(SeatAssignment{SubscriptionID: sub.ID, Email: "alan@acme.example"}))
			x.stop(s, sub, acme)
			s.Settle()
			live := func() int {
				return len(slices.DeleteFunc(s.Seats(sub.ID), func(x Seat) bool { return x.Status == "revoked" }))
			}
			if live() != x.kept || s.granted(acme.ID) != x.kept/2 {
				t.Error(live(), "seats and", s.granted(acme.ID), "grants are left")
			}
			if x.back == nil {
				_, err := s.AssignSeat(SeatAssignment{SubscriptionID: sub.ID, Email: "joan@acme.example"})
				refusal(t, err, 400, "SeatNotAvailable")
				return
			}
			x.back(s, sub, acme)
			s.Settle()
			if s.sub(sub.ID).Status != "active" || live() != x.kept || s.granted(acme.ID) != x.kept/2 {
				t.Error(s.sub(sub.ID).Status, live(), s.granted(acme.ID), "after the recovery")
			}
			s.claimed(SeatAssignment{SubscriptionID: sub.ID, Email: "joan@acme.example"})
			if s.granted(acme.ID) != x.kept/2+1 {
				t.Error("seats can be given anew")
			}
		})
	}
}

// The buyer gets a seat unasked on Polar's own success page only.
func TestBuyerClaimsOnPolarsPageOnly(t *testing.T) {
	for url, want := range map[string]int{"": 1, "https://app.example/ok": 0} {
		s := newShop(t, Options{})
		c := must[Checkout](t)(s.CreateCheckout(Checkout{
			ProductIDs: []string{s.team().ID}, CustomerEmail: "ops@acme.example", ExternalCustomerID: "org_acme", Seats: 2, SuccessURL: url,
		}))
		s.news()
		c = must[Checkout](t)(s.Confirm(c.ID, Payment{}))
		s.Settle()
		kinds := []string{
			"member.created", "checkout.updated", "subscription.created", "subscription.active", "subscription.updated",
			"order.created", "order.updated", "order.paid", "checkout.updated",
		}
		if want == 1 {
			kinds = slices.Insert(kinds, 8, "customer_seat.claimed")
			kinds = append(kinds, "benefit_grant.created")
		}
		s.expect(kinds...)
		seats := s.Seats(c.SubscriptionID)
		if len(seats) != want || s.granted(c.CustomerID) != want {
			t.Fatal(url, len(seats), s.granted(c.CustomerID))
		}
		if want == 1 && (seats[0].Status != "claimed" || seats[0].MemberID != s.Members(c.CustomerID)[0].ID) {
			t.Errorf("%+v", seats[0])
		}
	}
}

func TestNumberOfSeatsChanges(t *testing.T) {
	s := newShop(t, Options{})
	team := s.team(SeatTier{Min: 2, Max: 4, PerSeat: 1000}, SeatTier{Min: 5, Max: 9, PerSeat: 800})
	sub, _ := s.buySeats(team, 3)
	for _, email := range []string{"a@acme.example", "b@acme.example", "c@acme.example"} {
		must[Seat](t)(s.AssignSeat(SeatAssignment{SubscriptionID: sub.ID, Email: email, Immediate: true}))
	}
	s.Settle()
	s.news()
	for seats, code := range map[int]string{1: "BelowMinimumSeats", 2: "SeatsAlreadyAssigned", 10: "AboveMaximumSeats"} {
		_, err := s.ChangeSeats(sub.ID, seats, "")
		refusal(t, err, 400, code)
	}
	s.expect()
	got := must[Subscription](t)(s.ChangeSeats(sub.ID, 5, "invoice"))
	s.Settle()
	s.expect("order.created", "order.updated", "order.paid", "subscription.updated")
	if got.Seats != 5 || got.Amount != 4000 {
		t.Errorf("%+v", got)
	}
	must[Subscription](t)(s.ChangeSeats(sub.ID, 4, "next_period"))
	f := fields(t, s.expect("subscription.updated")[0])
	if p := f["pending_update"].(map[string]any); f["seats"] != 5.0 || p["seats"] != 4.0 || p["product_id"] != nil {
		t.Error(f["seats"], p)
	}
	s.AdvanceTo(got.CurrentPeriodEnd.Add(time.Minute))
	if got := s.sub(sub.ID); got.Seats != 4 || got.Amount != 4000 || got.Pending != nil || len(s.Seats(sub.ID)) != 3 {
		t.Errorf("%+v", got)
	}
	must[Subscription](t)(s.ChangeSeats(sub.ID, 6, "next_period"))
	if got := must[Subscription](t)(s.ChangeSeats(sub.ID, 4, "")); got.Pending != nil {
		t.Error("the same number takes a scheduled one back")
	}
	plain, _ := s.buy(s.pro)
	_, err := s.ChangeSeats(plain.ID, 2, "")
	refusal(t, err, 400, "NotASeatBasedSubscription")
	_, err = s.ChangePlan(sub.ID, s.pro.ID, "prorate")
	refusal(t, err, 422, "PolarRequestValidationError")
}

func TestSeatsOfAnOrder(t *testing.T) {
	s := newShop(t, Options{})
	pack := s.AddProduct(Product{Name: "Pack", Price: Price{Tiers: []SeatTier{{Min: 1, PerSeat: 5000}}}, BenefitIDs: s.once.BenefitIDs})
	_, acme := s.buySeats(pack, 2)
	order := s.Orders(acme.ID)[0]
	if s.granted(acme.ID) != 0 || order.Seats != 2 || order.Amount != 10000 {
		t.Errorf("%+v", order)
	}
	seat := s.claimed(SeatAssignment{OrderID: order.ID, Email: "grace@acme.example"})
	s.news()
	if g := s.Grants(acme.ID); len(g) != 1 || g[0].OrderID != order.ID || g[0].MemberID != seat.MemberID {
		t.Errorf("%+v", g)
	}
	must[Refund](t)(s.Refund(Refund{OrderID: order.ID, RevokeBenefits: true}))
	s.Settle()
	s.expect("refund.created", "order.updated", "order.refunded", "customer_seat.revoked", "benefit_grant.revoked")
	if s.granted(acme.ID) != 0 {
		t.Error("still granted")
	}
}

func TestRenewalOfSeatsTellsOfEachGrant(t *testing.T) {
	s := newShop(t, Options{})
	sub, _ := s.buySeats(s.team(), 2)
	for _, email := range []string{"a@acme.example", "b@acme.example"} {
		s.claimed(SeatAssignment{SubscriptionID: sub.ID, Email: email})
	}
	s.news()
	s.AdvanceTo(sub.CurrentPeriodEnd.Add(time.Minute))
	events := s.expect(
		"subscription.cycled", "subscription.updated", "order.created", "order.updated", "order.paid", "benefit_grant.cycled", "benefit_grant.cycled",
	)
	if f := fields(t, events[4]); f["seats"] != 2.0 || f["net_amount"] != 2400.0 {
		t.Error(f["seats"], f["net_amount"])
	}
}
