package box

import "testing"

// A free subscription becomes a paid one by a checkout, and stays the same.
func TestUpgradeAtCheckout(t *testing.T) {
	s := newShop(t, Options{})
	free := s.AddProduct(Product{Name: "Free", Interval: "month", Price: Price{Currency: "usd"}})
	first := must[Checkout](t)(s.Buy("usr_1", "ada@example.org", free.ID))
	paid := must[Checkout](t)(s.Buy("usr_2", "grace@example.org", s.pro.ID))
	s.Settle()
	s.news()
	c := s.client()
	for _, id := range []string{paid.SubscriptionID, s.org.ID} {
		c.refused(422, "PolarRequestValidationError", "POST", "/v1/checkouts/", `{"products":["`+s.pro.ID+`"],"subscription_id":"`+id+`"}`)
	}
	c.refused(422, "PolarRequestValidationError", "POST", "/v1/checkouts/",
		`{"products":["`+s.pro.ID+`"],"subscription_id":"`+first.SubscriptionID+`","customer_id":"`+paid.CustomerID+`"}`)
	made := c.do(201, "POST", "/v1/checkouts/", `{"products":["`+s.pro.ID+`"],"subscription_id":"`+first.SubscriptionID+`","metadata":{"who":"ada"}}`)
	if made["subscription_id"] != first.SubscriptionID || made["customer_id"] != first.CustomerID {
		t.Error(made)
	}
	must[Checkout](t)(s.Confirm(made["id"].(string), Payment{}))
	subs := s.Subscriptions(first.CustomerID)
	if len(subs) != 1 || subs[0].ProductID != s.pro.ID || subs[0].Amount == 0 || subs[0].Metadata["who"] != "ada" {
		t.Errorf("%+v", subs)
	}
	if !subs[0].CurrentPeriodStart.After(subs[0].CreatedAt) {
		t.Error("the period has not begun anew")
	}
	orders := s.Orders(first.CustomerID)
	if last := orders[len(orders)-1]; last.BillingReason != "subscription_update" || last.SubscriptionID != subs[0].ID || last.CheckoutID != made["id"] {
		t.Errorf("%+v", last)
	}
}
