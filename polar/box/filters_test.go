package box

import (
	"slices"
	"strings"
	"testing"
)

// varied fills a shop with rows that differ.
func (s *shop) varied() (Discount, Checkout, Order) {
	s.t.Helper()
	draft := "draft"
	must[Product](s.t)(s.UpdateProduct(s.maxi.ID, ProductUpdate{Visibility: &draft}))
	d := s.AddDiscount(Discount{Name: "Half price", Code: "HALF", BasisPoints: 5000})
	s.buy(s.pro)
	ended := must[Checkout](s.t)(s.Buy("usr_2", "grace@example.org", s.pro.ID))
	must[Subscription](s.t)(s.Revoke(ended.SubscriptionID))
	must[Customer](s.t)(s.CreateCustomer(Customer{Email: "joan@other.example", Name: "Joan Clarke", ExternalID: "own%_3"}))
	x := must[Checkout](s.t)(s.CreateCheckout(Checkout{ProductIDs: []string{s.once.ID}, ExternalCustomerID: "usr_1", DiscountID: d.ID}))
	x = must[Checkout](s.t)(s.Confirm(x.ID, Payment{}))
	order := s.Orders(x.CustomerID)[1]
	must[Refund](s.t)(s.Refund(Refund{OrderID: order.ID, Amount: 5}))
	must[Refund](s.t)(s.Refund(Refund{OrderID: order.ID, Amount: 7, Status: "pending"}))
	r, _ := s.receive(Endpoint{Events: []string{"order.paid"}})
	_, late := s.Buy("usr_4", "late@example.org", s.once.ID)
	if late != nil {
		s.t.Fatal(late)
	}
	s.Settle()
	if len(r.take()) != 1 {
		s.t.Fatal("nothing arrived")
	}
	return d, x, order
}

// Each list with its filters, and how many rows they leave.
func TestFiltersOfLists(t *testing.T) {
	s := newShop(t, Options{})
	d, x, order := s.varied()
	none := s.pro.ID // the id of something else
	c := s.client()
	for query, want := range map[string]int{
		"products/?query=PR":                           1,
		"products/?query=e":                            1, // Lifetime
		"products/?visibility=draft":                   1,
		"products/?visibility=draft&visibility=public": 4,
		"products/?benefit_id=" + s.pro.BenefitIDs[0]:  2,
		"products/?benefit_id=" + none:                 0,
		"products/?is_archived=true":                   0,
		"products/?is_recurring=false":                 1,
		"products/?organization_id=" + s.org.ID:        4,
		"products/?organization_id=" + none:            0,

		"benefits/?query=FEAT":                        2,
		"benefits/?type=custom":                       0,
		"benefits/?exclude_id=" + s.pro.BenefitIDs[0]: 2,
		"customers/":                                  4,
		"customers/?active=true":                      1,
		"customers/?active=false":                     3,
		"customers/?query=clarke":                     1,
		"customers/?query=example.org":                3,
		"customers/?query=usr_":                       3,
		"customers/?query=%25":                        1, // as such, and no pattern
		"customers/?email=ADA@example.org":            1,
		"customers/?email=ada@example":                0,

		"subscriptions/?active=true":         1,
		"subscriptions/?discount_id=" + d.ID: 0,

		"orders/?discount_id=" + d.ID:           1,
		"orders/?checkout_id=" + x.ID:           1,
		"orders/?product_billing_type=one_time": 2,
		"orders/?status=partially_refunded":     1,

		"refunds/?succeeded=true":                            1,
		"refunds/?succeeded=false":                           1,
		"refunds/?order_id=" + order.ID + "&sorting=-amount": 2,

		"checkouts/?status=succeeded":           4,
		"checkouts/?status=open":                0,
		"checkouts/?product_id=" + s.pro.ID:     2,
		"checkouts/?query=GRACE":                1,
		"checkouts/?external_customer_id=usr_1": 2,

		"discounts/?query=half":    1,
		"discounts/?query=nothing": 0,

		"benefit-grants/?is_granted=true":     3,
		"benefit-grants/?sorting=-revoked_at": 3,

		"members/?role=owner":                        4,
		"members/?role=member":                       0,
		"webhooks/deliveries?query=order.pa":         1,
		"webhooks/deliveries?query=late@example.org": 1,
		"webhooks/deliveries?query=nothing":          0,
		"webhooks/endpoints?organization_id=" + none: 0,
		"subscriptions/?organization_id=" + none:     0,

		"disputes/?sorting=amount&status=lost": 0,

		"orders/?sorting=-net_amount&sorting=customer":        4,
		"orders/?sorting=product&sorting=discount":            4,
		"orders/?sorting=invoice_number&sorting=subscription": 4,
	} {
		if n := total(c.get("/v1/" + query)); n != want {
			t.Errorf("%s: %d, want %d", query, n, want)
		}
	}
	for _, query := range []string{"products/?benefit_id=nonsense", "products/?organization_id=nonsense", "benefits/?exclude_id=x", "checkouts/?product_id=x"} {
		c.refused(422, "RequestValidationError", "GET", "/v1/"+query, "")
	}
}

func TestSortsOfLists(t *testing.T) {
	s := newShop(t, Options{})
	s.team()
	c := s.client()
	names := func(query string) string {
		t.Helper()
		var out []string
		for _, x := range c.get("/v1/" + query)["items"].([]any) {
			out = append(out, x.(map[string]any)["name"].(string))
		}
		return strings.Join(out, " ")
	}
	for query, want := range map[string]string{
		"products/?sorting=price_amount&sorting=name":       "Team Pro Try Max Lifetime",
		"products/?sorting=-price_amount&sorting=-name":     "Lifetime Max Try Pro Team",
		"products/?sorting=-price_amount_type&sorting=name": "Team Lifetime Max Pro Try",
	} {
		if got := names(query); got != want {
			t.Errorf("%s: %s", query, got)
		}
	}
	if got := strings.Fields(names("products/")); !slices.Equal(got, []string{"Team", "Lifetime", "Try", "Max", "Pro"}) {
		t.Error(got)
	}
}
