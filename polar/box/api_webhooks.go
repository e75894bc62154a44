package box

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

var eventTypes = []string{
	"checkout.created", "checkout.updated", "checkout.expired", "customer.created", "customer.updated", "customer.deleted",
	"customer.state_changed", "customer_seat.assigned", "customer_seat.claimed", "customer_seat.revoked", "member.created",
	"member.updated", "member.deleted", "order.created", "order.updated", "order.paid", "order.refunded", "subscription.created",
	"subscription.updated", "subscription.active", "subscription.canceled", "subscription.uncanceled", "subscription.cycled",
	"subscription.revoked", "subscription.past_due", "subscription.paused", "subscription.resumed", "subscription.migrated",
	"refund.created", "refund.updated", "product.created", "product.updated", "discount.created", "discount.updated",
	"discount.deleted", "benefit.created", "benefit.updated", "benefit_grant.created", "benefit_grant.cycled",
	"benefit_grant.updated", "benefit_grant.revoked", "organization.updated",
}

func (b *Box) endpointJSON(e *Endpoint) obj {
	events := e.Events
	if len(events) == 0 {
		events = eventTypes
	}
	return with(e.Row.json(), obj{
		"url": e.URL, "name": text(e.Name), "format": e.Format, "secret": e.Secret, "organization_id": b.org.ID, "events": events,
		"enabled": e.Enabled, "api_version": e.APIVersion, "uses_standard_webhook_signature": e.Kind == SecretStandard,
	})
}

func listEndpoints(c *call) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		var rows []Endpoint
		for _, id := range b.delivery.order {
			if e := b.delivery.endpoints[id]; !e.deleted {
				rows = append(rows, *e)
			}
		}
		return list(c, listing[Endpoint]{
			rows: rows, order: "-created_at", sorts: map[string]func(*Endpoint) string{"created_at": byCreation[Endpoint]}, render: b.endpointJSON,
		})
	})
}

func getEndpoint(c *call) (int, any, error) {
	e, ok := c.b.Endpoint(c.params["id"])
	if !ok {
		return 0, nil, notFound()
	}
	return http.StatusOK, c.b.endpointJSON(&e), nil
}

func checkEndpoint(address, format, version string, events []string) error {
	if u, err := url.Parse(address); address != "" && (err != nil || u.Host == "") {
		return requestError("url_parsing", "Input should be a valid URL", address, "body", "url")
	}
	if format != "" && !slices.Contains([]string{formatRaw, "discord", "slack"}, format) {
		return requestError("enum", "Input should be 'raw', 'discord' or 'slack'", format, "body", "format")
	}
	if version != "" && !slices.Contains(versions, version) {
		return requestError("enum", "Input should be a version of the API", version, "body", "api_version")
	}
	for i, kind := range events {
		if !slices.Contains(eventTypes, kind) {
			return requestError("enum", "Input should be an event type", kind, "body", "events", i)
		}
	}
	return nil
}

func createEndpoint(c *call) (int, any, error) {
	var e Endpoint
	err := c.needs("url", "format", "events")
	if err != nil {
		return 0, nil, err
	}
	if err = readFields(c, map[string]*string{"url": &e.URL, "name": &e.Name, "secret": &e.Secret, "api_version": &e.APIVersion, "format": &e.Format}); err != nil {
		return 0, nil, err
	}
	if e.Events, err = field[[]string](c, "events"); err != nil {
		return 0, nil, err
	}
	if err = checkEndpoint(e.URL, e.Format, e.APIVersion, e.Events); err != nil {
		return 0, nil, err
	}
	if e.Secret != "" {
		e.Kind = SecretMerchant
		if len(e.Secret) < 32 {
			return 0, nil, requestError("string_too_short", "String should have at least 32 characters", e.Secret, "body", "secret")
		}
	}
	e = c.b.AddEndpoint(e)
	return http.StatusCreated, c.b.endpointJSON(&e), nil
}

func updateEndpoint(c *call) (int, any, error) {
	var u EndpointUpdate
	var err error
	for name, to := range map[string]**string{"url": &u.URL, "name": &u.Name, "format": &u.Format, "api_version": &u.APIVersion} {
		if *to, err = field[*string](c, name); err != nil {
			return 0, nil, err
		}
	}
	if u.Events, err = field[[]string](c, "events"); err != nil {
		return 0, nil, err
	}
	if u.Enabled, err = field[*bool](c, "enabled"); err != nil {
		return 0, nil, err
	}
	var address, format, version string
	set(&address, u.URL)
	set(&format, u.Format)
	set(&version, u.APIVersion)
	if err = checkEndpoint(address, format, version, u.Events); err != nil {
		return 0, nil, err
	}
	return c.endpoint(c.b.UpdateEndpoint(c.params["id"], u))
}

func (c *call) endpoint(e Endpoint, err error) (int, any, error) {
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, c.b.endpointJSON(&e), nil
}

func resetSecret(c *call) (int, any, error) { return c.endpoint(c.b.ResetSecret(c.params["id"])) }

func deleteEndpoint(c *call) (int, any, error) {
	return http.StatusNoContent, nil, c.b.DeleteEndpoint(c.params["id"])
}

func redeliver(c *call) (int, any, error) {
	return http.StatusAccepted, nil, c.b.Redeliver(c.params["id"])
}

func listDeliveries(c *call) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		return list(c, listing[Attempt]{
			rows: b.delivery.attempts, order: "-created_at", sorts: map[string]func(*Attempt) string{"created_at": byCreation[Attempt]},
			after:  map[string]func(*Attempt) *time.Time{"start_timestamp": byCreated[Attempt]},
			before: map[string]func(*Attempt) *time.Time{"end_timestamp": byCreated[Attempt]},
			filters: map[string]func(*Attempt) string{
				"endpoint_id":     func(a *Attempt) string { return a.EndpointID },
				"succeeded":       func(a *Attempt) string { return strconv.FormatBool(a.Succeeded) },
				"http_code_class": func(a *Attempt) string { return strconv.Itoa(a.Code/100) + "xx" },
				"event_type":      func(a *Attempt) string { return a.EventType },
			},
			matches: map[string]func(*Attempt, string) bool{
				"query": func(a *Attempt, q string) bool {
					return contains(q, a.EventType, a.EventID, b.delivery.events[a.EventID].payload)
				},
			},
			render: b.attemptJSON,
		})
	})
}

func (b *Box) attemptJSON(a *Attempt) obj {
	e := b.delivery.events[a.EventID]
	payload, succeeded := any(e.payload), any(nil)
	if b.archived(e) {
		payload = nil
	}
	if e.succeeded != nil {
		succeeded = *e.succeeded
	}
	event := with(e.Row.json(), obj{
		"type": e.kind, "payload": payload, "succeeded": succeeded, "skipped": e.skipped, "last_http_code": count(e.lastCode),
		"is_archived": b.archived(e), "api_version": e.apiVersion,
	})
	return with(a.Row.json(), obj{
		"succeeded": a.Succeeded, "http_code": count(a.Code), "response": text(a.Response), "webhook_event": event,
	})
}
