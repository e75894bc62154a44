package box

import (
	"testing"
	"time"
)

// buyOff buys with a discount.
func (s *shop) buyOff(p Product, d Discount) (Subscription, Customer) {
	s.t.Helper()
	x := must[Checkout](s.t)(s.CreateCheckout(Checkout{
		ProductIDs: []string{p.ID}, ExternalCustomerID: "usr_1", CustomerEmail: "ada@example.org", AllowTrial: true, DiscountID: d.ID,
	}))
	x = must[Checkout](s.t)(s.Confirm(x.ID, Payment{}))
	s.Settle()
	customer, _ := s.Customer(x.CustomerID)
	sub, _ := s.Subscription(x.SubscriptionID)
	return sub, customer
}

// A discount of all of it makes orders of nothing, which are paid all the same.
func TestWholeDiscountStillPays(t *testing.T) {
	s := newShop(t, Options{})
	d := s.AddDiscount(Discount{Name: "All of it", BasisPoints: 10000, Duration: "forever"})
	s.news()
	sub, customer := s.buyOff(s.pro, d)
	events := s.expect(purchase...)
	f := fields(t, events[8])
	if f["subtotal_amount"] != 1900.0 || f["discount_amount"] != 1900.0 || f["net_amount"] != 0.0 || f["total_amount"] != 0.0 || f["paid"] != true || f["discount_id"] != d.ID {
		t.Error(string(events[8].Data))
	}
	if f := fields(t, events[4]); f["discount_id"] != d.ID || f["discount"].(map[string]any)["basis_points"] != 10000.0 || f["amount"] != 1900.0 {
		t.Error(f["discount"])
	}
	s.SetCard(customer.ID, false) // nobody is asked
	s.AdvanceTo(sub.CurrentPeriodEnd.Add(time.Minute))
	f = fields(t, s.expect("subscription.cycled", "subscription.updated", "order.created", "order.updated", "order.paid", "benefit_grant.cycled")[4])
	if f["net_amount"] != 0.0 || f["status"] != "paid" {
		t.Error(f["net_amount"], f["status"])
	}
}

func TestHowLongADiscountHolds(t *testing.T) {
	for _, x := range []struct {
		d    Discount
		p    func(*shop) Product
		want []int // what each order costs
	}{
		{Discount{BasisPoints: 5000, Duration: "once"}, func(s *shop) Product { return s.pro }, []int{950, 1900, 1900}},
		{Discount{BasisPoints: 5000, Duration: "forever"}, func(s *shop) Product { return s.pro }, []int{950, 950, 950}},
		{Discount{BasisPoints: 5000, Duration: "repeating", Months: 2}, func(s *shop) Product { return s.pro }, []int{950, 950, 1900}},
		{Discount{Amount: 400, Duration: "once"}, func(s *shop) Product { return s.pro }, []int{1500, 1900, 1900}},
		{Discount{Amount: 9999, Duration: "once"}, func(s *shop) Product { return s.pro }, []int{0, 1900, 1900}},
		{Discount{BasisPoints: 5000, Duration: "once"}, func(s *shop) Product { return s.trial }, []int{0, 950, 1900}},
	} {
		s := newShop(t, Options{})
		x.d.Name = "Off"
		sub, customer := s.buyOff(x.p(s), s.AddDiscount(x.d))
		for range 2 {
			s.AdvanceTo(s.sub(sub.ID).CurrentPeriodEnd.Add(time.Minute))
		}
		for i, o := range s.Orders(customer.ID) {
			if o.Net() != x.want[i] || o.Tax != taxOf(x.want[i]) {
				t.Errorf("%+v: order %d costs %d", x.d, i, o.Net())
			}
		}
	}
}

func TestDiscountsOverTheAPI(t *testing.T) {
	s := newShop(t, Options{})
	c := s.client()
	s.news()
	const path = "/v1/discounts/"
	made := c.do(201, "POST", path, `{"name":"Half","code":"HALF","type":"percentage","basis_points":5000,"duration":"repeating","duration_in_months":3,
		"max_redemptions":1,"products":["`+s.once.ID+`"]}`)
	id := made["id"].(string)
	if made["basis_points"] != 5000.0 || made["duration_in_months"] != 3.0 || len(made["products"].([]any)) != 1 || made["redemptions_count"] != 0.0 {
		t.Error(made)
	}
	fixed := c.do(201, "POST", path, `{"name":"Five off","amount":500,"currency":"usd","duration":"once","max_redemptions_per_customer":1}`)
	if fixed["type"] != "fixed" || fixed["amounts"].(map[string]any)["usd"] != 500.0 {
		t.Error(fixed)
	}
	for body, code := range map[string]string{
		`{"duration":"once","basis_points":1}`:                                          "RequestValidationError",
		`{"name":"x","type":"percentage","duration":"once"}`:                            "RequestValidationError",
		`{"name":"x","type":"percentage","duration":"once","basis_points":10001}`:       "RequestValidationError",
		`{"name":"x","type":"percentage","duration":"always","basis_points":1}`:         "RequestValidationError",
		`{"name":"x","type":"gift","duration":"once","basis_points":1}`:                 "RequestValidationError",
		`{"name":"x","type":"percentage","duration":"once","basis_points":1,"extra":1}`: "RequestValidationError",
		`{"name":"x","type":"percentage","duration":"repeating","basis_points":1}`:      "PolarRequestValidationError",
	} {
		c.refused(422, code, "POST", path, body)
	}
	if got := c.do(200, "PATCH", path+id, `{"name":"Halved","basis_points":4000}`); got["name"] != "Halved" || got["basis_points"] != 4000.0 || got["code"] != "HALF" {
		t.Error(got)
	}
	c.refused(422, "PolarRequestValidationError", "PATCH", path+id, `{"type":"fixed"}`)
	c.refused(422, "RequestValidationError", "PATCH", path+id, `{"basis_points":0}`)
	s.expect("discount.created", "discount.created", "discount.updated")

	open := `{"products":["` + s.once.ID + `"],"customer_email":"ada@example.org","discount_id":"` + id + `"}`
	x := c.do(201, "POST", "/v1/checkouts/", open)
	if x["discount_amount"] != 5960.0 || x["net_amount"] != 8940.0 || x["discount"].(map[string]any)["id"] != id {
		t.Error(x["discount_amount"], x["net_amount"])
	}
	second := c.do(201, "POST", "/v1/checkouts/", open)
	c.refused(422, "PolarRequestValidationError", "POST", "/v1/checkouts/", `{"products":["`+s.pro.ID+`"],"discount_id":"`+id+`"}`)
	must[Checkout](t)(s.Confirm(x["id"].(string), Payment{}))
	if got := c.get(path + id); got["redemptions_count"] != 1.0 {
		t.Error(got["redemptions_count"])
	}
	_, err := s.Confirm(second["id"].(string), Payment{})
	refusal(t, err, 403, "DiscountRedemptionLimitReached")
	c.refused(422, "PolarRequestValidationError", "POST", "/v1/checkouts/", open)

	sub, _ := s.buy(s.pro)
	five := fixed["id"].(string)
	if got := c.do(200, "PATCH", "/v1/subscriptions/"+sub.ID, `{"discount_id":"`+five+`"}`); got["discount_id"] != five {
		t.Error(got["discount_id"])
	}
	if n := total(c.get("/v1/subscriptions/?discount_id=" + five)); n != 1 {
		t.Error(n)
	}
	c.refused(422, "PolarRequestValidationError", "PATCH", "/v1/subscriptions/"+sub.ID, `{"discount_id":"`+id+`"}`)
	if got := c.do(200, "PATCH", "/v1/subscriptions/"+sub.ID, `{"discount_id":null}`); got["discount_id"] != nil {
		t.Error(got["discount_id"])
	}
	c.do(204, "DELETE", path+id, "")
	c.refused(404, "ResourceNotFound", "GET", path+id, "")
	c.refused(404, "ResourceNotFound", "DELETE", path+id, "")
	c.refused(422, "PolarRequestValidationError", "POST", "/v1/checkouts/", open)
}
