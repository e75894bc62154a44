package box

// organizationJSON is the organization with the settings that decide anything.
func (b *Box) organizationJSON() obj {
	return with(b.customerOrganization(), obj{
		"email": nil, "website": nil, "socials": []any{}, "status": "active", "details_submitted_at": nil,
		"onboarding_resubmission_requested_at": nil, "sso_enforced": false, "default_presentment_currency": "usd",
		"default_tax_behavior": "exclusive",
		"feature_settings":     obj{"member_model_enabled": true, "seat_based_pricing_enabled": true},
		"subscription_settings": obj{
			"allow_multiple_subscriptions": b.options.AllowMultiple, "allow_customer_updates": true, "proration_behavior": b.options.Proration,
			"benefit_revocation_grace_period": b.options.GraceDays, "prevent_trial_abuse": false,
		},
		"customer_email_settings": obj{
			"order_confirmation":                     true,
			"payment_method_expiration_reminder":     true,
			"subscription_cancellation":              true,
			"subscription_confirmation":              true,
			"subscription_cycled":                    true,
			"subscription_cycled_after_trial":        true,
			"subscription_past_due":                  true,
			"subscription_paused":                    true,
			"subscription_renewal_reminder":          true,
			"subscription_resumed":                   true,
			"subscription_revoked":                   true,
			"subscription_trial_conversion_reminder": true,
			"subscription_uncanceled":                true,
			"subscription_updated":                   true,
		},
		"dispute_settings": obj{"auto_accept_below_amount": nil}, "embed_hosts": []any{}, "embed_hosts_enforced": false, "account_id": nil, "payout_account_id": nil,
		"capabilities": obj{
			"checkout_payments": true, "subscription_renewals": b.renewals, "payouts": true, "refunds": true, "api_access": true, "dashboard_access": true,
		},
	})
}

// customerOrganization is what a customer sees of it.
func (b *Box) customerOrganization() obj {
	return with(b.org.Row.json(), obj{
		"name": b.org.Name, "slug": b.org.Slug, "avatar_url": nil, "proration_behavior": b.options.Proration, "allow_customer_updates": true,
		"customer_portal_settings": obj{
			"usage": obj{"show": true}, "customer": obj{"allow_email_change": false},
			"subscription": obj{"update_seats": !b.options.NoSeatChanges, "update_plan": !b.options.NoPlanChanges, "pause": true},
		},
	})
}

// portalSubscription is a subscription as its customer sees it.
func (b *Box) portalSubscription(s *Subscription) obj {
	p, _ := b.products.get(s.ProductID)
	all := b.subscriptionJSON(s)
	for _, private := range []string{"price_id", "price", "metadata", "user_id", "user", "customer", "custom_field_data", "discount"} {
		delete(all, private)
	}
	all["product"] = with(b.checkoutProduct(&p), obj{"organization": b.customerOrganization()})
	return all
}
