package contract

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// This file is the one list of what Polar has and its document of August 2026
// does not.

// Go's regular expressions have no look-ahead. These two only say that decimals
// are not empty and not too long.
var lookaheads = strings.NewReplacer(`(?!^[-+.]*$)`, "", `(?=[\\d.]{1,18}0*$)`, "")

// Types of fields, as JSON schemas.
const (
	anID      = `{"type":"string","format":"uuid4"}`
	maybeID   = `{"anyOf":[{"type":"string","format":"uuid4"},{"type":"null"}]}`
	aNumber   = `{"type":"integer"}`
	maybeInt  = `{"anyOf":[{"type":"integer"},{"type":"null"}]}`
	aText     = `{"type":"string","minLength":1}`
	maybeText = `{"anyOf":[{"type":"string"},{"type":"null"}]}`
	aBool     = `{"type":"boolean"}`
	aVersion  = `{"type":"string","pattern":"^20[0-9][0-9]-[0-9][0-9]$"}`
	aPrice    = `ProductPrice` // of the document
)

// fields are on the wire and not in the document. The units came after it. The
// others are deprecated, and left out of it on purpose.
var fields = map[string]map[string]string{
	"Subscription":      {"price_id": anID, "price": aPrice, "user_id": anID, "user": "SubscriptionUser", "units": maybeInt},
	"OrderSubscription": {"price_id": anID, "user_id": anID, "units": maybeInt},
	"CustomerStateSubscription": {
		"price_id": anID,
	},
	"CustomerSubscription": {"units": maybeInt},
	"PendingSubscriptionUpdate": {
		"units": maybeInt,
	},
	"Order": {
		"amount": aNumber, "from_balance_amount": aNumber, "product_price_id": maybeID, "product_price": aPrice,
		"user_id": anID, "user": "OrderUser", "units": maybeInt,
	},
	"Checkout": {
		"customer_external_id": maybeText, "subtotal_amount": aNumber, "units": maybeInt, "min_units": maybeInt, "max_units": maybeInt,
		"customer_billing_address_fields": `{"type":"object","additionalProperties":{"type":"boolean"}}`,
	},
	// Each type of price says again how its product is sold.
	"ProductPriceFixed":       {"type": "ProductPriceType", "recurring_interval": maybeText},
	"ProductPriceCustom":      {"type": "ProductPriceType", "recurring_interval": maybeText},
	"ProductPriceSeatBased":   {"type": "ProductPriceType", "recurring_interval": maybeText, "price_per_seat": aNumber},
	"ProductPriceMeteredUnit": {"type": "ProductPriceType", "recurring_interval": maybeText},
	// The types of grants differ in their properties.
	"BenefitGrantCustomWebhook":        {"user_id": anID},
	"BenefitGrantFeatureFlagWebhook":   {"user_id": anID},
	"BenefitGrantLicenseKeysWebhook":   {"user_id": anID},
	"BenefitGrantMeterCreditWebhook":   {"user_id": anID},
	"BenefitGrantDiscordWebhook":       {"user_id": anID},
	"BenefitGrantDownloadablesWebhook": {"user_id": anID},
	"BenefitGrant":                     {"user_id": anID},
	// These came with the signatures of September 2026.
	"WebhookEndpoint": {"api_version": aVersion, "uses_standard_webhook_signature": aBool},
	"WebhookEvent":    {"api_version": aVersion},
	// The document knows a 422 as FastAPI has it, and Polar adds a name.
	"HTTPValidationError": {"error": `{"enum":["RequestValidationError","PolarRequestValidationError"]}`},
}

// required are the fields above that a client may rely on.
var required = map[string][]string{
	"HTTPValidationError": {"error", "detail"},
}

// refusals are classes of errors that the document does not name for the
// operations that answer with them; most of them it names nowhere.
var refusals = map[string]int{
	"AboveMaximumSeats":                    http.StatusBadRequest,
	"BadRequest":                           http.StatusBadRequest,
	"BelowMinimumSeats":                    http.StatusBadRequest,
	"InvalidInvitationToken":               http.StatusBadRequest,
	"InvalidSeatAssignmentRequest":         http.StatusBadRequest,
	"NotASeatBasedSubscription":            http.StatusBadRequest,
	"RefundAmountTooHigh":                  http.StatusBadRequest,
	"RevokeSubscriptionBenefitsProhibited": http.StatusBadRequest,
	"SeatAlreadyAssigned":                  http.StatusBadRequest,
	"SeatNotAvailable":                     http.StatusBadRequest,
	"SeatNotPending":                       http.StatusBadRequest,
	"SeatsAlreadyAssigned":                 http.StatusBadRequest,
	"Unauthorized":                         http.StatusUnauthorized,
	"AlreadyActiveSubscriptionError":       http.StatusForbidden,
	"NotOpenCheckout":                      http.StatusForbidden,
	"NotPermitted":                         http.StatusForbidden,
	"UpdateSubscriptionPlanNotAllowed":     http.StatusForbidden,
	"UpdateSubscriptionSeatsNotAllowed":    http.StatusForbidden,
	"CannotPauseSubscription":              http.StatusConflict,
	"NoScheduledPause":                     http.StatusConflict,
	"NotPausedSubscription":                http.StatusConflict,
	"SubscriptionLocked":                   http.StatusConflict,
	"ResourceUnavailable":                  http.StatusGone,
	"LengthRequired":                       http.StatusLengthRequired,
	"RequestEntityTooLarge":                http.StatusRequestEntityTooLarge,
	// The document lists this 404 of seats without its body.
	"ResourceNotFound": http.StatusNotFound,
}

// bridge adds to the document what it lacks.
func bridge(doc *openapi3.T) error {
	if err := migrated(doc); err != nil {
		return err
	}
	for _, hook := range doc.Webhooks { // every envelope, since September 2026
		payload := hook.Post.RequestBody.Value.Content.Get("application/json").Schema.Value
		if err := add(doc, "envelope", payload, map[string]string{"api_version": aVersion}); err != nil {
			return err
		}
	}
	for name, more := range fields {
		ref := doc.Components.Schemas[name]
		if ref == nil {
			return fmt.Errorf("the document has no %s", name)
		}
		if err := add(doc, name, ref.Value, more); err != nil {
			return err
		}
		ref.Value.Required = append(ref.Value.Required, required[name]...)
	}
	return nil
}

func add(doc *openapi3.T, name string, to *openapi3.Schema, more map[string]string) error {
	for field, schema := range more {
		if to.Properties[field] != nil {
			return fmt.Errorf("%s.%s is in the document, and no gap any more", name, field)
		}
		s, err := parse(doc, schema)
		if err != nil {
			return fmt.Errorf("%s.%s: %w", name, field, err)
		}
		to.Properties[field] = s
	}
	return nil
}

// parse makes a schema of its JSON, or of its name in the document.
func parse(doc *openapi3.T, schema string) (*openapi3.SchemaRef, error) {
	if known := doc.Components.Schemas[schema]; known != nil {
		return known, nil
	}
	s := &openapi3.Schema{}
	return openapi3.NewSchemaRef("", s), json.Unmarshal([]byte(schema), s)
}

// migrated makes subscription.migrated, which came in September 2026: the body
// of an update with two fields more.
func migrated(doc *openapi3.T) error {
	const kind = "subscription.migrated"
	if doc.Webhooks[kind] != nil {
		return fmt.Errorf("%s is in the document, and no gap any more", kind)
	}
	types := doc.Components.Schemas["WebhookEventType"].Value
	types.Enum = append(types.Enum, kind) // an endpoint can ask for it
	like := doc.Webhooks["subscription.updated"].Post.RequestBody.Value.Content.Get("application/json").Schema.Value
	payload := *like
	payload.Properties = maps.Clone(like.Properties)
	payload.Properties["type"] = openapi3.NewSchemaRef("", &openapi3.Schema{Enum: []any{kind}})
	body := openapi3.NewRequestBody().WithJSONSchema(&payload)
	doc.Webhooks[kind] = &openapi3.PathItem{Post: &openapi3.Operation{RequestBody: &openapi3.RequestBodyRef{Value: body}}}
	return add(doc, kind, &payload, map[string]string{"provider": aText, "provider_subscription_id": aText})
}
