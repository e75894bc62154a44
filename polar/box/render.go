package box

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// obj is a JSON object.
type obj map[string]any

// stamp writes a time as Pydantic does: microseconds, and no fraction when it
// is zero.
func stamp(t time.Time) string {
	if t.Nanosecond()/1000 == 0 {
		return t.UTC().Format("2006-01-02T15:04:05Z")
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000Z")
}

func maybe(t *time.Time) any {
	if t == nil {
		return nil
	}
	return stamp(*t)
}

// text writes null for an empty string.
func text(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func count(n int) any {
	if n == 0 {
		return nil
	}
	return n
}

func object(m map[string]any) map[string]any {
	if m == nil {
		return map[string]any{}
	}
	return m
}

func (r *Row) json() obj {
	return obj{"id": r.ID, "created_at": stamp(r.CreatedAt), "modified_at": maybe(r.ModifiedAt)}
}

func with(base obj, more obj) obj {
	for k, v := range more {
		base[k] = v
	}
	return base
}

func avatar(email string) string {
	sum := sha256.Sum256([]byte(foldEmail(email)))
	return "https://www.gravatar.com/avatar/" + hex.EncodeToString(sum[:]) + "?d=404"
}

func (p *Price) json(product *Product) obj {
	kind, interval := "one_time", any(nil)
	if product.Interval != "" {
		kind, interval = "recurring", product.Interval
	}
	out := with(p.Row.json(), obj{ // a free price is a fixed one of nothing
		"source": "catalog", "price_currency": p.Currency, "tax_behavior": nil, "amount_type": p.kind(),
		"is_archived": false, "product_id": product.ID, "type": kind, "recurring_interval": interval,
	})
	if !p.seated() {
		return with(out, obj{"price_amount": p.Amount})
	}
	return with(out, obj{"seat_tiers": p.tiersJSON(), "price_per_seat": p.Tiers[0].PerSeat})
}

// productHead is a product without prices and benefits, as orders carry it.
func (b *Box) productHead(p *Product) obj {
	interval, n := any(nil), any(nil)
	if p.Interval != "" {
		interval, n = p.Interval, p.IntervalCount
	}
	return with(p.Row.json(), obj{
		"trial_interval": text(p.TrialInterval), "trial_interval_count": count(p.TrialCount),
		"name": p.Name, "description": text(p.Description), "visibility": p.Visibility,
		"recurring_interval": interval, "recurring_interval_count": n,
		"meter_interval": nil, "meter_interval_count": nil,
		"is_recurring": p.Interval != "", "is_archived": p.Archived,
		"organization_id": b.org.ID, "metadata": object(p.Metadata),
	})
}

func (b *Box) productJSON(p *Product) obj {
	benefits := []any{}
	for _, id := range p.BenefitIDs {
		if x, ok := b.benefits.get(id); ok {
			benefits = append(benefits, b.benefitJSON(&x))
		}
	}
	return with(b.productHead(p), obj{
		"prices": []any{p.Price.json(p)}, "benefits": benefits, "medias": []any{}, "attached_custom_fields": []any{},
	})
}

// checkoutProduct is what the public may see of a product.
func (b *Box) checkoutProduct(p *Product) obj {
	out := b.productJSON(p)
	for _, x := range out["benefits"].([]any) {
		for _, private := range []string{"metadata", "visibility", "properties", "visibility_configurable"} {
			delete(x.(obj), private)
		}
	}
	delete(out, "metadata")
	delete(out, "attached_custom_fields")
	return out
}

func (b *Box) benefitJSON(x *Benefit) obj {
	return with(x.Row.json(), obj{
		"type": x.Type, "description": x.Description, "selectable": true, "deletable": true, "is_deleted": false,
		"organization_id": b.org.ID, "metadata": object(x.Metadata), "visibility": "public",
		"properties": object(x.Properties), "visibility_configurable": true,
	})
}

func (b *Box) customerJSON(c *Customer) obj {
	external := text(c.ExternalID)
	if old, ok := c.Metadata["__external_id"]; ok && c.DeletedAt != nil {
		external = old // the id itself is free for somebody else
	}
	address := any(nil)
	if c.Address != nil {
		address = c.Address
	}
	return with(c.Row.json(), obj{
		"metadata": object(c.Metadata), "external_id": external, "email": text(c.Email), "email_verified": false,
		"type": c.Type, "name": text(c.Name), "billing_name": text(c.Name), "billing_address": address,
		"tax_id": nil, "locale": "en", "organization_id": b.org.ID,
		"default_payment_method_id": text(c.PaymentMethodID), "deleted_at": maybe(c.DeletedAt),
		"first_user_event_at": nil, "avatar_url": avatar(c.Email),
	})
}

func userJSON(c *Customer) obj {
	initial := "?"
	for _, r := range c.Name + c.Email {
		initial = string(r)
		break
	}
	return obj{"id": c.ID, "email": c.Email, "public_name": initial, "avatar_url": avatar(c.Email), "github_username": nil}
}

func memberJSON(m *Member) obj {
	return with(m.Row.json(), obj{
		"customer_id": m.CustomerID, "email": m.Email, "name": text(m.Name), "external_id": text(m.ExternalID), "role": m.Role,
	})
}

// subscriptionHead is a subscription without what hangs on it.
func (b *Box) subscriptionHead(s *Subscription, p *Product) obj {
	return with(s.Row.json(), obj{
		"amount": s.Amount, "currency": s.Currency, "recurring_interval": s.Interval, "recurring_interval_count": s.IntervalCount,
		"status": s.Status, "current_period_start": stamp(s.CurrentPeriodStart), "current_period_end": stamp(s.CurrentPeriodEnd),
		"current_meter_period_start": nil, "current_meter_period_end": nil,
		"trial_start": maybe(s.TrialStart), "trial_end": maybe(s.TrialEnd), "cancel_at_period_end": s.CancelAtPeriodEnd,
		"canceled_at": maybe(s.CanceledAt), "started_at": maybe(s.StartedAt), "ends_at": maybe(s.EndsAt), "ended_at": maybe(s.EndedAt),
		"past_due_at": maybe(s.PastDueAt), "pause_at_period_end": s.PauseAtPeriodEnd, "paused_at": maybe(s.PausedAt),
		"resumes_at": maybe(s.ResumesAt), "customer_id": s.CustomerID, "product_id": s.ProductID, "discount_id": text(s.DiscountID),
		"checkout_id": text(s.CheckoutID), "seats": count(s.Seats), "units": nil,
		"customer_cancellation_reason": text(s.CancellationReason), "customer_cancellation_comment": text(s.CancellationComment),
		"price_id": p.Price.ID, "metadata": object(s.Metadata), "user_id": s.CustomerID,
	})
}

func (b *Box) subscriptionJSON(s *Subscription) obj {
	p, _ := b.products.get(s.ProductID)
	c, _ := b.customers.get(s.CustomerID)
	pending := any(nil)
	if u := s.Pending; u != nil {
		pending = with(u.Row.json(), obj{"applies_at": stamp(u.AppliesAt), "product_id": text(u.ProductID), "seats": count(u.Seats), "units": nil})
	}
	return with(b.subscriptionHead(s, &p), obj{
		"custom_field_data": obj{}, "customer": b.customerJSON(&c), "user": userJSON(&c), "product": b.productJSON(&p),
		"discount": b.discountFor(s.DiscountID), "price": p.Price.json(&p), "prices": []any{p.Price.json(&p)}, "meters": []any{}, "pending_update": pending,
	})
}

// stateJSON renders a customer's state, of now or as it was seen at a time.
func (b *Box) stateJSON(c *Customer, at time.Time) obj {
	subs, grants := b.subs.of(c.ID), b.grants.of(c.ID)
	if !at.IsZero() {
		subs, grants = b.subs.ofSeen(c.ID, at), b.grants.ofSeen(c.ID, at)
	}
	active, granted := []any{}, []any{}
	for _, s := range subs {
		if !s.Active() {
			continue
		}
		p, _ := b.products.get(s.ProductID)
		all, few := b.subscriptionHead(&s, &p), obj{"custom_field_data": obj{}, "meters": []any{}}
		for _, k := range []string{
			"id", "created_at", "modified_at", "metadata", "status", "amount", "currency", "recurring_interval", "current_period_start",
			"current_period_end", "trial_start", "trial_end", "cancel_at_period_end", "canceled_at", "started_at", "ends_at", "product_id",
			"discount_id", "price_id",
		} {
			few[k] = all[k]
		}
		active = append(active, few)
	}
	for _, g := range grants {
		if g.GrantedAt == nil {
			continue
		}
		x, _ := b.benefits.get(g.BenefitID)
		granted = append(granted, with(g.Row.json(), obj{
			"granted_at": stamp(*g.GrantedAt), "benefit_id": x.ID, "benefit_type": x.Type, "benefit_metadata": object(x.Metadata), "properties": obj{},
		}))
	}
	return with(b.customerJSON(c), obj{"active_subscriptions": active, "granted_benefits": granted, "active_meters": []any{}})
}

func (b *Box) grantJSON(g *Grant) obj {
	c, _ := b.customers.get(g.CustomerID)
	x, _ := b.benefits.get(g.BenefitID)
	member := any(nil)
	if m, ok := b.members.get(g.MemberID); ok {
		member = memberJSON(&m)
	}
	return with(g.Row.json(), obj{
		"granted_at": maybe(g.GrantedAt), "is_granted": g.GrantedAt != nil, "revoked_at": maybe(g.RevokedAt), "is_revoked": g.RevokedAt != nil,
		"subscription_id": text(g.SubscriptionID), "order_id": text(g.OrderID), "customer_id": g.CustomerID, "member_id": text(g.MemberID),
		"benefit_id": g.BenefitID, "error": g.Error.json(), "customer": b.customerJSON(&c), "member": member, "benefit": b.benefitJSON(&x),
		"properties": obj{}, "previous_properties": obj{}, "user_id": g.CustomerID,
	})
}
