package box

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"
)

func byCreated[T any, P entity[T]](v *T) *time.Time { return &P(v).meta().CreatedAt }

func listSubscriptions(c *call) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		canceled := func(s *Subscription) *time.Time { return s.CanceledAt }
		started := func(s *Subscription) *time.Time { return s.StartedAt }
		return list(c, listing[Subscription]{
			of: &b.subs, order: "-started_at",
			after:  map[string]func(*Subscription) *time.Time{"started_after": started, "canceled_at_after": canceled},
			before: map[string]func(*Subscription) *time.Time{"started_before": started, "canceled_at_before": canceled},
			filters: map[string]func(*Subscription) string{
				"product_id":                   func(s *Subscription) string { return s.ProductID },
				"customer_id":                  func(s *Subscription) string { return s.CustomerID },
				"external_customer_id":         func(s *Subscription) string { return b.externalOf(s.CustomerID) },
				"discount_id":                  func(s *Subscription) string { return s.DiscountID },
				"status":                       func(s *Subscription) string { return s.Status },
				"active":                       func(s *Subscription) string { return strconv.FormatBool(s.Active()) },
				"cancel_at_period_end":         func(s *Subscription) string { return strconv.FormatBool(s.CancelAtPeriodEnd) },
				"customer_cancellation_reason": func(s *Subscription) string { return s.CancellationReason },
			},
			sorts: b.subscriptionSorts(),
			meta:  func(s *Subscription) map[string]any { return s.Metadata }, render: b.subscriptionJSON,
		})
	})
}

func (b *Box) subscriptionSorts() map[string]func(*Subscription) string {
	return map[string]func(*Subscription) string{
		"started_at":         func(s *Subscription) string { return sortable(s.StartedAt) },
		"current_period_end": func(s *Subscription) string { return sortable(&s.CurrentPeriodEnd) },
		"ended_at":           func(s *Subscription) string { return sortable(s.EndedAt) },
		"ends_at":            func(s *Subscription) string { return sortable(s.EndsAt) },
		"status":             func(s *Subscription) string { return s.Status },
		"amount":             func(s *Subscription) string { return money(s.Amount) },
		"customer": func(s *Subscription) string {
			c, _ := b.customers.get(s.CustomerID)
			return c.Email
		},
		"discount": func(s *Subscription) string {
			d, _ := b.discounts.get(s.DiscountID)
			return d.Name
		},
		"organization": func(*Subscription) string { return b.org.Name },
		"product": func(s *Subscription) string {
			p, _ := b.products.get(s.ProductID)
			return p.Name
		},
	}
}

func getSubscription(c *call) (int, any, error) {
	return one(c, func(b *Box) *table[Subscription] { return &b.subs }, (*Box).subscriptionJSON)
}

func (c *call) subscription(s Subscription, err error) (int, any, error) {
	if err != nil {
		return 0, nil, err
	}
	return c.read(func(b *Box) (any, error) { return b.subscriptionJSON(&s), nil })
}

func revokeSubscription(c *call) (int, any, error) {
	return c.subscription(c.b.Revoke(c.params["id"]))
}

// patchSubscription takes exactly one of the bodies that Polar knows.
func patchSubscription(c *call) (int, any, error) {
	b, id := c.b, c.params["id"]
	has := func(name string) bool { _, ok := c.body[name]; return ok }
	switch {
	case has("revoke"):
		if err := c.only("revoke", "customer_cancellation_reason", "customer_cancellation_comment"); err != nil {
			return 0, nil, err
		}
		if err := c.literal("revoke", "true"); err != nil {
			return 0, nil, err
		}
		return c.subscription(b.Revoke(id))
	case has("cancel_at_period_end"):
		return c.patchCancel(id, "customer_cancellation_reason", "customer_cancellation_comment")
	case has("pause_at_period_end"):
		return c.patchPause(id)
	case has("resume"):
		return c.patchResume(id)
	case has("pending_update"):
		return c.patchPending(id)
	case has("current_billing_period_end"):
		if err := c.only("current_billing_period_end"); err != nil {
			return 0, nil, err
		}
		end, err := field[time.Time](c, "current_billing_period_end")
		if err != nil {
			return 0, nil, err
		}
		return c.subscription(b.EndPeriodAt(id, end.UTC()))
	case has("seats"):
		return c.patchSeats(id)
	case has("units"):
		return c.patchUnits(id)
	case has("product_id"), has("discount_id"), has("trial_end"), has("metadata"), has("proration_behavior"):
		return c.patchPlan(id)
	}
	for name := range c.body {
		return 0, nil, c.only("product_id", name+"?")
	}
	return c.subscription(b.change(id, func(t *tx, s *Subscription) error { t.save(s); return nil }))
}

// patchSeats takes the body of the merchant, and that of the customer, who
// cannot say how it is charged.
func (c *call) patchSeats(id string) (int, any, error) {
	names := []string{"seats", "proration_behavior"}
	if c.session != nil {
		names = names[:1]
	}
	if err := c.only(names...); err != nil {
		return 0, nil, err
	}
	proration, err := c.proration()
	if err != nil {
		return 0, nil, err
	}
	seats, err := field[*int](c, "seats")
	if err == nil && seats == nil {
		err = requestError("int_type", "Input should be a valid integer", nil, "body", "seats")
	}
	if err != nil {
		return 0, nil, err
	}
	return c.subscription(c.b.ChangeSeats(id, *seats, proration))
}

// patchUnits is for prices per unit, which the box does not have.
func (c *call) patchUnits(id string) (int, any, error) {
	if err := c.only("units", "proration_behavior"); err != nil {
		return 0, nil, err
	}
	units, err := field[int](c, "units")
	if err != nil {
		return 0, nil, err
	}
	return c.subscription(c.b.change(id, func(*tx, *Subscription) error {
		return invalid("This subscription is not priced by units.", units, "units")
	}))
}

// proration reads how a change is charged; the default is the organization's.
func (c *call) proration() (string, error) {
	s, err := field[string](c, "proration_behavior")
	if err == nil && !slices.Contains([]string{"", "invoice", "prorate", "next_period", "reset"}, s) {
		err = requestError("enum", "Input should be 'invoice', 'prorate', 'next_period' or 'reset'", s, "body", "proration_behavior")
	}
	return s, err
}

func (c *call) literal(name, want string) error {
	if string(c.body[name]) != want {
		return requestError("literal_error", "Input should be "+want, c.body[name], "body", name)
	}
	return nil
}

var cancellationReasons = []string{
	"", "customer_service", "low_quality", "missing_features", "switched_service", "too_complex", "too_expensive", "unused", "other",
}

func (c *call) patchCancel(id, reasonName, commentName string) (int, any, error) {
	if err := c.only("cancel_at_period_end", reasonName, commentName); err != nil {
		return 0, nil, err
	}
	cancel, err := field[*bool](c, "cancel_at_period_end")
	if err != nil {
		return 0, nil, err
	}
	if cancel == nil && c.session == nil {
		return 0, nil, requestError("bool_type", "Input should be a valid boolean", nil, "body", "cancel_at_period_end")
	}
	var reason, comment string
	if err := readFields(c, map[string]*string{reasonName: &reason, commentName: &comment}); err != nil {
		return 0, nil, err
	}
	if !slices.Contains(cancellationReasons, reason) {
		return 0, nil, requestError("enum", "Input should be a cancellation reason", reason, "body", reasonName)
	}
	if cancel != nil && !*cancel { // a customer may say no more than why
		return c.subscription(c.b.Uncancel(id))
	}
	return c.subscription(c.b.Cancel(id, reason, comment))
}

func (c *call) patchPause(id string) (int, any, error) {
	if err := c.only("pause_at_period_end", "resumes_at"); err != nil {
		return 0, nil, err
	}
	pause, err := field[bool](c, "pause_at_period_end")
	if err != nil {
		return 0, nil, err
	}
	resumes, err := field[*time.Time](c, "resumes_at")
	if err != nil {
		return 0, nil, err
	}
	if !pause {
		return c.subscription(c.b.Unpause(id))
	}
	return c.subscription(c.b.Pause(id, resumes))
}

func (c *call) patchResume(id string) (int, any, error) {
	if err := c.only("resume"); err != nil {
		return 0, nil, err
	}
	if err := c.literal("resume", "true"); err != nil {
		return 0, nil, err
	}
	return c.subscription(c.b.Resume(id))
}

func (c *call) patchPending(id string) (int, any, error) {
	if err := c.only("pending_update"); err != nil {
		return 0, nil, err
	}
	if err := c.literal("pending_update", "null"); err != nil {
		return 0, nil, err
	}
	return c.subscription(c.b.DropPending(id))
}

// patchPlan is the body with the product, the end of the trial, the metadata.
func (c *call) patchPlan(id string) (int, any, error) {
	if err := c.only("product_id", "proration_behavior", "discount_id", "trial_end", "metadata"); err != nil {
		return 0, nil, err
	}
	var product, discount string
	if err := readFields(c, map[string]*string{"product_id": &product, "discount_id": &discount}); err != nil {
		return 0, nil, err
	}
	proration, err := c.proration()
	if err != nil {
		return 0, nil, err
	}
	trial, err := c.trialEnd()
	if err != nil {
		return 0, nil, err
	}
	metadata, err := field[map[string]any](c, "metadata")
	if err != nil {
		return 0, nil, err
	}
	if product != "" && !isUUID(product) {
		return 0, nil, requestError("uuid_parsing", "Input should be a valid UUID", product, "body", "product_id")
	}
	sub, known := c.b.Subscription(id)
	if !known {
		return 0, nil, notFound()
	}
	_, off := c.body["discount_id"]
	if metadata == nil && !off && trial == nil && product == "" {
		return c.subscription(c.b.change(id, func(t *tx, s *Subscription) error { t.save(s); return nil }))
	}
	if metadata != nil {
		sub, err = c.b.SetMetadata(id, metadata)
	}
	if off && err == nil {
		sub, err = c.b.SetDiscount(id, discount)
	}
	if trial != nil && err == nil {
		return c.subscription(c.b.EndTrialAt(id, *trial))
	}
	if product == "" || err != nil {
		return c.subscription(sub, err)
	}
	return c.subscription(c.b.ChangePlan(id, product, proration))
}

func (c *call) trialEnd() (*time.Time, error) {
	raw, ok := c.body["trial_end"]
	if !ok {
		return nil, nil
	}
	var word string
	if json.Unmarshal(raw, &word) == nil && word == "now" {
		now := c.b.Now()
		return &now, nil
	}
	return field[*time.Time](c, "trial_end")
}
