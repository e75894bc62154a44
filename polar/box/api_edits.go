package box

import (
	"encoding/json"
	"net/http"
	"slices"
)

// present reads a field that null and absence leave alone.
func present[T any](c *call, name string, to **T) error {
	v, err := field[*T](c, name)
	if err == nil {
		*to = v
	}
	return err
}

// all runs readers until one fails.
func all(readers ...func() error) error {
	for _, read := range readers {
		if err := read(); err != nil {
			return err
		}
	}
	return nil
}

func (c *call) between(name, s string, least, most int) error {
	if n := len([]rune(s)); n < least || n > most {
		return requestError("string_length", "String has the wrong length", s, "body", name)
	}
	return nil
}

func oneOf(name, s string, values ...string) error {
	if !slices.Contains(values, s) {
		return requestError("enum", "Input should be one of the values that Polar knows", s, "body", name)
	}
	return nil
}

// refuseUnknown refuses fields of Polar's that the box does not have, unless
// they say nothing.
func (c *call) refuseUnknown(names ...string) error {
	for _, name := range names {
		if raw, ok := c.body[name]; ok && !slices.Contains([]string{"null", "[]", "{}"}, string(raw)) {
			return requestError("value_error", "The box does not have this", json.RawMessage(raw), "body", name)
		}
	}
	return nil
}

var (
	units        = []string{"day", "week", "month", "year"}
	visibilities = []string{"draft", "private", "public"}
)

// priceBody is a price of a request: fixed, or per seat.
type priceBody struct {
	AmountType string `json:"amount_type"`
	Currency   string `json:"price_currency"`
	Amount     *int   `json:"price_amount"`
	Seats      *struct {
		Type  string `json:"seat_tier_type"`
		Tiers []struct {
			Min     int  `json:"min_seats"`
			Max     *int `json:"max_seats"`
			PerSeat int  `json:"price_per_seat"`
		} `json:"tiers"`
	} `json:"seat_tiers"`
}

// prices reads the price, of which products of the box have one.
func (c *call) prices() (*Price, error) {
	list, err := field[[]priceBody](c, "prices")
	if err != nil || list == nil {
		return nil, err
	}
	if len(list) != 1 {
		return nil, requestError("value_error", "Products of the box have one price", nil, "body", "prices")
	}
	body := list[0]
	p := Price{Currency: body.Currency}
	bad := func(msg, name string) error {
		return requestError("value_error", msg, nil, "body", "prices", 0, name)
	}
	switch {
	case body.AmountType == "fixed" && (body.Amount == nil || *body.Amount < 0):
		return nil, bad("A fixed price has an amount that is not negative", "price_amount")
	case body.AmountType == "fixed":
		p.Amount = *body.Amount
		return &p, nil
	case body.AmountType != "seat_based":
		return nil, bad("The box knows fixed and seat_based", "amount_type")
	case body.Seats == nil || len(body.Seats.Tiers) == 0:
		return nil, bad("A price per seat has tiers", "seat_tiers")
	}
	p.Graduated = body.Seats.Type == "graduated"
	for i, t := range body.Seats.Tiers {
		tier := SeatTier{Min: t.Min, PerSeat: t.PerSeat}
		if t.Max != nil {
			tier.Max = *t.Max
		}
		open := i > 0 && (p.Tiers[i-1].Max == 0 || tier.Min != p.Tiers[i-1].Max+1)
		if tier.Min < 1 || tier.PerSeat < 0 || tier.Max != 0 && tier.Max < tier.Min || open {
			return nil, bad("Tiers must follow each other without gaps", "seat_tiers")
		}
		p.Tiers = append(p.Tiers, tier)
	}
	return &p, nil
}

func createProduct(c *call) (int, any, error) {
	p := Product{Visibility: "public"}
	var visibility string
	var price *Price
	err := all(
		func() error {
			return c.only("metadata", "name", "description", "visibility", "prices", "medias", "attached_custom_fields", "organization_id",
				"trial_interval", "trial_interval_count", "recurring_interval", "recurring_interval_count", "meter_interval", "meter_interval_count")
		},
		func() error {
			return c.refuseUnknown("medias", "attached_custom_fields", "meter_interval", "meter_interval_count")
		},
		func() error { return c.needs("name", "prices") },
		func() error {
			return readFields(c, map[string]*string{
				"name": &p.Name, "description": &p.Description, "visibility": &visibility, "recurring_interval": &p.Interval, "trial_interval": &p.TrialInterval,
			})
		},
		func() error {
			return readFields(c, map[string]*int{"recurring_interval_count": &p.IntervalCount, "trial_interval_count": &p.TrialCount})
		},
		func() (err error) { p.Metadata, err = field[map[string]any](c, "metadata"); return },
		func() (err error) { price, err = c.prices(); return },
		func() error { return c.between("name", p.Name, 3, 64) },
		func() error { return oneOf("visibility", visibility, append(visibilities, "")...) },
		func() error { return oneOf("recurring_interval", p.Interval, append(units, "")...) },
		func() error { return oneOf("trial_interval", p.TrialInterval, append(units, "")...) },
	)
	if err == nil && price == nil {
		err = requestError("missing", "Field required", nil, "body", "prices")
	}
	if err != nil {
		return 0, nil, err
	}
	if p.Price = *price; visibility != "" {
		p.Visibility = visibility
	}
	p = c.b.AddProduct(p)
	_, v, err := c.read(func(b *Box) (any, error) { return b.productJSON(&p), nil })
	return http.StatusCreated, v, err
}

func updateProduct(c *call) (int, any, error) {
	var u ProductUpdate
	err := all(
		func() error {
			return c.only("metadata", "name", "description", "visibility", "is_archived", "prices", "medias", "attached_custom_fields",
				"trial_interval", "trial_interval_count", "recurring_interval", "recurring_interval_count")
		},
		func() error {
			return c.refuseUnknown("medias", "attached_custom_fields", "trial_interval", "trial_interval_count", "recurring_interval", "recurring_interval_count")
		},
		func() error { return present(c, "name", &u.Name) },
		func() error { return present(c, "description", &u.Description) },
		func() error { return present(c, "visibility", &u.Visibility) },
		func() error { return present(c, "is_archived", &u.Archived) },
		func() (err error) { u.Metadata, err = field[map[string]any](c, "metadata"); return },
	)
	if err == nil && u.Name != nil {
		err = c.between("name", *u.Name, 3, 64)
	}
	if err == nil && u.Visibility != nil {
		err = oneOf("visibility", *u.Visibility, visibilities...)
	}
	if err == nil && !c.keepsPrice() {
		u.Price, err = c.prices()
	}
	if err != nil {
		return 0, nil, err
	}
	p, err := c.b.UpdateProduct(c.params["id"], u)
	if err != nil {
		return 0, nil, err
	}
	return c.read(func(b *Box) (any, error) { return b.productJSON(&p), nil })
}

// keepsPrice says that the body names the price that the product has.
func (c *call) keepsPrice() bool {
	var ids []struct{ ID string }
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	p, _ := c.b.products.get(c.params["id"])
	return json.Unmarshal(c.body["prices"], &ids) == nil && len(ids) == 1 && ids[0].ID == p.Price.ID
}

// setProductBenefits is the only way to say what a product grants.
func setProductBenefits(c *call) (int, any, error) {
	err := c.only("benefits")
	if err == nil {
		err = c.needs("benefits")
	}
	if err != nil {
		return 0, nil, err
	}
	ids, err := field[[]string](c, "benefits")
	if err != nil {
		return 0, nil, err
	}
	p, err := c.b.SetProductBenefits(c.params["id"], ids...)
	if err != nil {
		return 0, nil, err
	}
	return c.read(func(b *Box) (any, error) { return b.productJSON(&p), nil })
}

// createBenefit knows the types that need nobody else.
func createBenefit(c *call) (int, any, error) {
	var x Benefit
	err := all(
		func() error {
			return c.only("metadata", "type", "description", "organization_id", "visibility", "properties")
		},
		func() error { return c.needs("type", "description", "properties") },
		func() error { return readFields(c, map[string]*string{"type": &x.Type, "description": &x.Description}) },
		func() error {
			return readFields(c, map[string]*map[string]any{"metadata": &x.Metadata, "properties": &x.Properties})
		},
		func() error { return benefitType(x.Type) },
		func() error { return c.between("description", x.Description, 3, 42) },
		func() error { return checkProperties(x.Type, x.Properties) },
	)
	if err != nil {
		return 0, nil, err
	}
	if _, ok := x.Properties["note"]; !ok && x.Type == "custom" {
		x.Properties = map[string]any{"note": nil}
	}
	x = c.b.AddBenefit(x)
	return created(c.b.benefitJSON(&x), nil)
}

// benefitType refuses what Polar does not know, and what the box has not.
func benefitType(kind string) error {
	if slices.Contains([]string{"discord", "github_repository", "downloadables", "license_keys", "meter_credit", "slack_shared_channel"}, kind) {
		return requestError("value_error", "The box has no benefits of this type", kind, "body", "type")
	}
	return oneOf("type", kind, "custom", "feature_flag")
}

// checkProperties knows that a custom benefit has a note, and a flag nothing.
func checkProperties(kind string, properties map[string]any) error {
	for name, v := range properties {
		if _, isText := v.(string); kind == "custom" && name == "note" && (isText || v == nil) {
			continue
		}
		return requestError("extra_forbidden", "Extra inputs are not permitted", v, "body", "properties", name)
	}
	return nil
}

func updateBenefit(c *call) (int, any, error) {
	var u BenefitUpdate
	var kind string
	err := all(
		func() error { return c.only("metadata", "type", "description", "visibility", "properties") },
		func() error { return c.needs("type") },
		func() error { return readFields(c, map[string]*string{"type": &kind}) },
		func() error { return present(c, "description", &u.Description) },
		func() error {
			return readFields(c, map[string]*map[string]any{"metadata": &u.Metadata, "properties": &u.Properties})
		},
	)
	if err == nil && u.Description != nil {
		err = c.between("description", *u.Description, 3, 42)
	}
	if err != nil {
		return 0, nil, err
	}
	c.b.mu.Lock()
	known, ok := c.b.benefits.get(c.params["id"])
	c.b.mu.Unlock()
	if !ok {
		return 0, nil, notFound()
	}
	if kind != known.Type {
		return 0, nil, invalid("The type of a benefit cannot be changed.", kind, "type")
	}
	if err = checkProperties(kind, u.Properties); err != nil {
		return 0, nil, err
	}
	x, err := c.b.UpdateBenefit(known.ID, u)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, c.b.benefitJSON(&x), nil
}

func createSubscription(c *call) (int, any, error) {
	var customer, external, product string
	err := all(
		func() error { return c.only("metadata", "product_id", "customer_id", "external_customer_id") },
		func() error { return c.needs("product_id") },
		func() error {
			return readFields(c, map[string]*string{"product_id": &product, "customer_id": &customer, "external_customer_id": &external})
		},
	)
	if err != nil {
		return 0, nil, err
	}
	metadata, err := field[map[string]any](c, "metadata")
	if err != nil {
		return 0, nil, err
	}
	if customer == "" {
		if err := c.needs("external_customer_id"); err != nil {
			return 0, nil, err
		}
		known, ok := c.b.CustomerByExternalID(external)
		if !ok {
			return 0, nil, invalid("Customer does not exist.", external, "external_customer_id")
		}
		customer = known.ID
	}
	_, v, err := c.subscription(c.b.CreateSubscription(customer, product, metadata))
	return http.StatusCreated, v, err
}

// updateOrganization knows the name and the settings that decide something.
// The others it takes, and forgets.
func updateOrganization(c *call) (int, any, error) {
	if err := c.only("name", "avatar_url", "email", "website", "socials", "details", "country", "feature_settings", "subscription_settings",
		"customer_email_settings", "customer_portal_settings", "dispute_settings", "embed_hosts", "default_presentment_currency",
		"default_tax_behavior", "sso_enforced"); err != nil {
		return 0, nil, err
	}
	if c.params["id"] != c.b.Organization().ID {
		return 0, nil, notFound()
	}
	var u OrganizationUpdate
	if err := present(c, "name", &u.Name); err != nil {
		return 0, nil, err
	}
	if u.Name != nil && len([]rune(*u.Name)) < 3 {
		return 0, nil, requestError("string_too_short", "String should have at least 3 characters", *u.Name, "body", "name")
	}
	settings, err := field[struct {
		Grace     *int    `json:"benefit_revocation_grace_period"`
		Multiple  *bool   `json:"allow_multiple_subscriptions"`
		Proration *string `json:"proration_behavior"`
	}](c, "subscription_settings")
	if err != nil {
		return 0, nil, err
	}
	u.GraceDays, u.AllowMultiple, u.Proration = settings.Grace, settings.Multiple, settings.Proration
	if p := u.Proration; p != nil && !slices.Contains([]string{"invoice", "prorate", "next_period"}, *p) {
		return 0, nil, requestError("literal_error", "Input should be 'invoice', 'prorate' or 'next_period'", *p, "body", "subscription_settings", "proration_behavior")
	}
	portal, err := field[struct {
		Subscription *struct {
			Plan  bool `json:"update_plan"`
			Seats bool `json:"update_seats"`
		} `json:"subscription"`
	}](c, "customer_portal_settings")
	if err != nil {
		return 0, nil, err
	}
	if s := portal.Subscription; s != nil {
		u.NoPlanChanges, u.NoSeatChanges = new(!s.Plan), new(!s.Seats)
	}
	c.b.UpdateOrganization(u)
	return c.read(func(b *Box) (any, error) { return b.organizationJSON(), nil })
}
