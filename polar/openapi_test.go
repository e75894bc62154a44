package polar_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/caddy-polar/caddy-polar/polar"
)

// gaps is what Polar has and the copy of its document, which is of August 2026,
// does not, as far as the client speaks of it.
var gaps = struct {
	body   []string // "operation property": sent by us, unknown to the copy
	answer []string // "type.field": read by us, unknown to the copy
	// ambiguous are schemas whose values fit their siblings in a oneOf too, so
	// that no value of theirs is valid.
	ambiguous []string
}{
	body: []string{
		"webhooks:create_webhook_endpoint api_version",
		"webhooks:update_webhook_endpoint api_version",
		"subscriptions:update units",
	},
	answer:    []string{"WebhookEndpoint.APIVersion"},
	ambiguous: []string{"#/components/schemas/LegacyRecurringProductPrice"},
}

const anID = "0f4a2c0e-93b7-4f0e-8a51-6a2d0d5f9c11"

// document is loaded once. It must be there: without it nothing is checked.
var document = sync.OnceValues(func() (*openapi3.T, error) {
	raw, err := os.ReadFile("../testdata/openapi-2026-10.json")
	if err != nil {
		return nil, err
	}
	// Go's regular expressions have no look-ahead. These two only say that
	// decimals are not empty and not too long.
	text := strings.NewReplacer(`(?!^[-+.]*$)`, "", `(?=[\\d.]{1,18}0*$)`, "").Replace(string(raw))
	return openapi3.NewLoader().LoadFromData([]byte(text))
})

// calls has each call of the client with everything set that it can send.
var calls = map[string]func(context.Context, *polar.Client) (any, error){
	"CreateCheckout": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.CreateCheckout(ctx, polar.CheckoutCreate{
			Products: []string{anID}, CustomerID: anID, ExternalCustomerID: "user/1", CustomerEmail: "a@example.com",
			CustomerName: "A", CustomerIPAddress: "203.0.113.7", Metadata: polar.Metadata{"polar_gateway": "v1.x.y"},
			Seats: 3, SubscriptionID: anID, SuccessURL: "https://app.example.com/auth/polar/success?checkout_id={CHECKOUT_ID}",
			ReturnURL: "https://app.example.com/", EmbedOrigin: "https://app.example.com", Locale: "en",
		})
	},
	"GetCheckout": func(ctx context.Context, c *polar.Client) (any, error) { return c.GetCheckout(ctx, anID) },
	"ListSubscriptions": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.ListSubscriptions(ctx, polar.SubscriptionFilter{
			Status: []string{"active", "trialing", "past_due"}, CustomerID: anID, ExternalCustomerID: "user/1&x=y",
			ProductID: []string{anID}, StartedAfter: time.Unix(1e9, 0), Metadata: map[string]string{"polar_gateway": "v1.x.y"},
		}, polar.Paging{Page: 2, Limit: 100, Sorting: []string{"-started_at", "status"}})
	},
	"GetSubscription": func(ctx context.Context, c *polar.Client) (any, error) { return c.GetSubscription(ctx, anID) },
	"UpdateSubscription": func(ctx context.Context, c *polar.Client) (a any, err error) {
		resumes := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
		for _, change := range []polar.SubscriptionChange{
			polar.ChangeProduct{ProductID: anID, Proration: "prorate", DiscountID: anID, TrialEnd: "now", Metadata: polar.Metadata{"a": "b"}},
			polar.ChangeProduct{TrialEnd: "2027-01-01T00:00:00Z"},
			polar.ChangeSeats{Seats: 4, Proration: "next_period"},
			polar.ChangeUnits{Units: 4, Proration: "invoice"},
			polar.ChangePeriodEnd{CurrentPeriodEnd: resumes},
			polar.ChangeCancel{AtPeriodEnd: true, Reason: "unused", Comment: "bye"},
			polar.ChangeCancel{AtPeriodEnd: false},
			polar.ChangeRevoke{Reason: "other", Comment: "bye"},
			polar.ChangePause{AtPeriodEnd: true, ResumesAt: &resumes},
			polar.ChangePause{},
			polar.ChangeResume{},
			polar.ChangeClearPending{},
		} {
			if a, err = c.UpdateSubscription(ctx, anID, change); err != nil {
				return nil, fmt.Errorf("%T: %w", change, err)
			}
		}
		return a, nil
	},
	"RevokeSubscription": func(ctx context.Context, c *polar.Client) (any, error) { return c.RevokeSubscription(ctx, anID) },
	"ListOrders": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.ListOrders(ctx, polar.OrderFilter{
			Status: []string{"paid", "refunded"}, CustomerID: anID, ExternalCustomerID: "u", ProductID: []string{anID, anID},
			CheckoutID: anID, SubscriptionID: anID, BillingType: "one_time",
			CreatedAfter: time.Unix(1e9, 0), Metadata: map[string]string{"k": "v"},
		}, polar.Paging{Sorting: []string{"-created_at"}})
	},
	"GetOrder": func(ctx context.Context, c *polar.Client) (any, error) { return c.GetOrder(ctx, anID) },
	"ListRefunds": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.ListRefunds(ctx, polar.RefundFilter{
			OrderID: anID, SubscriptionID: anID, CustomerID: anID, ExternalCustomerID: "u", Succeeded: new(true),
		}, polar.Paging{Limit: 10})
	},
	"ListDisputes": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.ListDisputes(ctx, polar.DisputeFilter{OrderID: anID, Status: []string{"lost"}}, polar.Paging{Page: 1})
	},
	"ListBenefitGrants": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.ListBenefitGrants(ctx, polar.BenefitGrantFilter{
			CustomerID: anID, ExternalCustomerID: "u", IsGranted: new(true),
		}, polar.Paging{})
	},
	"ListCustomers": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.ListCustomers(ctx, polar.CustomerFilter{Email: "a@example.com", Query: "user/1"}, polar.Paging{})
	},
	"GetCustomer": func(ctx context.Context, c *polar.Client) (any, error) { return c.GetCustomer(ctx, anID) },
	"GetCustomerByExternalID": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.GetCustomerByExternalID(ctx, "a user?#%&+ü@example.com")
	},
	"CreateCustomer": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.CreateCustomer(ctx, polar.CustomerCreate{
			Email: "a@example.com", ExternalID: "user/1", Name: "A", Metadata: polar.Metadata{"k": "v"},
		})
	},
	"UpdateCustomer": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.UpdateCustomer(ctx, anID, polar.CustomerUpdate{Email: "a@example.com", ExternalID: "user/1", Name: "A"})
	},
	"CreateCustomerSession": func(ctx context.Context, c *polar.Client) (any, error) {
		_, err := c.CreateCustomerSession(ctx, polar.CustomerSessionCreate{
			ExternalCustomerID: "user/1", ExternalMemberID: "m", ReturnURL: "https://app.example.com/",
		})
		if err != nil {
			return nil, err
		}
		return c.CreateCustomerSession(ctx, polar.CustomerSessionCreate{CustomerID: anID, MemberID: anID})
	},
	"ListProducts": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.ListProducts(ctx, polar.ProductFilter{ID: []string{anID}, IsArchived: new(false)}, polar.Paging{})
	},
	"GetProduct": func(ctx context.Context, c *polar.Client) (any, error) { return c.GetProduct(ctx, anID) },
	"ListBenefits": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.ListBenefits(ctx, polar.BenefitFilter{ID: []string{anID}}, polar.Paging{})
	},
	"ListWebhookEndpoints": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.ListWebhookEndpoints(ctx, polar.Paging{Page: 1, Limit: 100})
	},
	"CreateWebhookEndpoint": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.CreateWebhookEndpoint(ctx, polar.WebhookEndpointCreate{
			URL: "https://app.example.com/auth/polar/webhook", Name: "gateway", Format: "raw",
			Events: []string{"subscription.updated"}, APIVersion: "2026-10",
		})
	},
	"UpdateWebhookEndpoint": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.UpdateWebhookEndpoint(ctx, anID, polar.WebhookEndpointUpdate{
			URL: "https://app.example.com/auth/polar/webhook", Name: "gateway", Format: "raw",
			Events: []string{"order.paid"}, Enabled: new(true), APIVersion: "2026-10",
		})
	},
	"ListDeliveries": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.ListDeliveries(ctx, polar.DeliveryFilter{
			EndpointID: anID, Start: time.Now().Add(-time.Hour), End: time.Now(), Succeeded: new(false),
			EventType: []string{"order.paid", "subscription.updated"},
		}, polar.Paging{Limit: 100})
	},
	"Redeliver": func(ctx context.Context, c *polar.Client) (any, error) { return nil, c.Redeliver(ctx, anID) },
	"GetMetrics": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.GetMetrics(ctx, polar.MetricsQuery{
			Start: time.Now().AddDate(0, -1, 0), End: time.Now(), Interval: "day", Timezone: "Europe/Paris",
			ProductID: []string{anID}, CustomerID: anID, BillingType: "recurring", Metrics: []string{"revenue", "orders"},
		})
	},
	"ListSeats": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.ListSeats(ctx, polar.SeatFilter{SubscriptionID: anID, OrderID: anID})
	},
	"AssignSeat": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.AssignSeat(ctx, polar.SeatAssign{
			SubscriptionID: anID, OrderID: anID, Email: "a@example.com", ExternalCustomerID: "u", CustomerID: anID,
			ExternalMemberID: "m", MemberID: anID, ImmediateClaim: true,
		})
	},
	"RevokeSeat": func(ctx context.Context, c *polar.Client) (any, error) { return c.RevokeSeat(ctx, anID) },
	"ListMembers": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.ListMembers(ctx, polar.MemberFilter{CustomerID: anID, ExternalCustomerID: "u", Role: "owner"}, polar.Paging{})
	},
	"Portal.GetUser": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.Portal("polar_cst_x").GetUser(ctx)
	},
	"Portal.ListSeats": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.Portal("polar_cst_x").ListSeats(ctx, polar.SeatFilter{SubscriptionID: anID, OrderID: anID})
	},
	"Portal.InviteToSeat": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.Portal("polar_cst_x").InviteToSeat(ctx, polar.SeatInvite{SubscriptionID: anID, OrderID: anID, Email: "a@example.com"})
	},
	"Portal.ResendInvitation": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.Portal("polar_cst_x").ResendInvitation(ctx, anID)
	},
	"Portal.RevokeSeat": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.Portal("polar_cst_x").RevokeSeat(ctx, anID)
	},
	"Portal.ListSubscriptions": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.Portal("polar_cst_x").ListSubscriptions(ctx, polar.PortalFilter{ProductID: []string{anID}, Active: new(true)}, polar.Paging{})
	},
	"Portal.GetSubscription": func(ctx context.Context, c *polar.Client) (any, error) {
		return c.Portal("polar_cst_x").GetSubscription(ctx, anID)
	},
	"Portal.UpdateSubscription": func(ctx context.Context, c *polar.Client) (a any, err error) {
		for _, change := range []polar.PortalChange{
			polar.PortalChangeProduct{ProductID: anID},
			polar.PortalChangeSeats{Seats: 2},
			polar.PortalChangeCancel{AtPeriodEnd: true, Reason: "too_expensive", Comment: "bye"},
			polar.PortalChangeCancel{},
			polar.ChangePause{AtPeriodEnd: true},
			polar.ChangeResume{},
			polar.ChangeClearPending{},
		} {
			if a, err = c.Portal("polar_cst_x").UpdateSubscription(ctx, anID, change); err != nil {
				return nil, fmt.Errorf("%T: %w", change, err)
			}
		}
		return a, nil
	},
}

// notCalls are the methods that ask Polar nothing.
var notCalls = []string{"Background", "Prompt", "Close", "Offset", "ClockHeard", "SetBack", "Sandbox", "Version", "Portal", "String", "GoString", "Portal.String", "Portal.GoString"}

func TestContractCoversEveryCall(t *testing.T) {
	var methods []string
	for m := range reflect.TypeFor[*polar.Client]().Methods() {
		methods = append(methods, m.Name)
	}
	for m := range reflect.TypeFor[*polar.Portal]().Methods() {
		methods = append(methods, "Portal."+m.Name)
	}
	known := append(slices.Collect(maps.Keys(calls)), notCalls...)
	slices.Sort(known)
	slices.Sort(methods)
	if !slices.Equal(methods, known) {
		t.Errorf("methods %v\nbut the contract test knows %v", methods, known)
	}
}

func TestContract(t *testing.T) {
	doc, err := document()
	if err != nil {
		t.Fatalf("Polar's OpenAPI document: %v", err)
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(&contract{doc: doc, complain: t.Errorf})
			defer server.Close()
			c := newClient(t, polar.ClientConfig{BaseURL: server.URL})
			answer, err := call(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if answer == nil {
				return
			}
			seen := map[string]bool{}
			visitFields(reflect.ValueOf(answer), seen)
			for field, filled := range seen {
				if !filled && !slices.Contains(gaps.answer, field) {
					t.Errorf("%s stays empty though the answer has every field: is its name right?", field)
				}
			}
		})
	}
}

// TestContractNotices keeps the test above honest.
func TestContractNotices(t *testing.T) {
	doc, err := document()
	if err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func(context.Context, *polar.Client) error{
		"status": func(ctx context.Context, c *polar.Client) error {
			_, err := c.ListSubscriptions(ctx, polar.SubscriptionFilter{Status: []string{"gone"}}, polar.Paging{})
			return err
		},
		"id": func(ctx context.Context, c *polar.Client) error {
			_, err := c.GetProduct(ctx, "pro")
			return err
		},
		"sorting": func(ctx context.Context, c *polar.Client) error {
			_, err := c.ListOrders(ctx, polar.OrderFilter{}, polar.Paging{Sorting: []string{"colour"}})
			return err
		},
		"body": func(ctx context.Context, c *polar.Client) error {
			_, err := c.CreateCheckout(ctx, polar.CheckoutCreate{Products: []string{"pro"}})
			return err
		},
		"empty change": func(ctx context.Context, c *polar.Client) error {
			_, err := c.Portal("polar_cst_x").UpdateSubscription(ctx, anID, polar.PortalChangeProduct{})
			return err
		},
		"missing": func(ctx context.Context, c *polar.Client) error {
			_, err := c.CreateCustomerSession(ctx, polar.CustomerSessionCreate{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			noticed := 0
			server := httptest.NewServer(&contract{doc: doc, complain: func(string, ...any) { noticed++ }})
			defer server.Close()
			if err := call(t.Context(), newClient(t, polar.ClientConfig{BaseURL: server.URL})); err != nil {
				t.Fatal(err)
			}
			if noticed == 0 {
				t.Error("nothing was noticed")
			}
		})
	}
}

// visitFields notes for each field with a name on the wire whether it was ever
// filled.
func visitFields(v reflect.Value, seen map[string]bool) {
	switch v.Kind() {
	case reflect.Pointer:
		visitFields(v.Elem(), seen)
	case reflect.Slice:
		for i := range v.Len() {
			visitFields(v.Index(i), seen)
		}
	case reflect.Struct:
		for field, value := range v.Fields() {
			if !field.IsExported() {
				return // a time
			}
			name := v.Type().Name() + "." + field.Name
			seen[name] = seen[name] || !value.IsZero()
			visitFields(value, seen)
		}
	}
}

// contract is a server that holds each request against the document, and gives
// an answer with every field that the document names.
type contract struct {
	doc      *openapi3.T
	complain func(format string, args ...any)
}

var contractOptions = &openapi3filter.Options{
	AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true,
	RejectWhenRequestBodyNotSpecified: true, SkipSettingDefaults: true,
	SchemaValidationOptions: []openapi3.SchemaValidationOption{
		openapi3.EnableFormatValidation(),
		openapi3.WithStringFormatValidator("uuid4", openapi3.NewRegexpFormatValidator(openapi3.FormatOfStringForUUIDOfRFC4122)),
	},
}

func (s *contract) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	route, params := s.find(r)
	if route == nil {
		s.complain("%s %s is not in the document", r.Method, r.URL.EscapedPath())
		http.Error(w, `{"detail":"Not Found"}`, http.StatusNotFound)
		return
	}
	name := route.Operation.OperationID
	if r.Header.Get("Polar-Version") != polar.DefaultVersion {
		s.complain("%s: Polar-Version is %q", name, r.Header.Get("Polar-Version"))
	}
	customer := strings.HasPrefix(r.URL.Path, "/v1/customer-portal/")
	if got := r.Header.Get("Authorization"); customer != (got == "Bearer polar_cst_x") {
		s.complain("%s: wrong kind of token", name)
	}
	for key := range r.URL.Query() {
		key, _, _ = strings.Cut(key, "[")
		if route.Operation.Parameters.GetByInAndName("query", key) == nil {
			s.complain("%s: query parameter %q is not in the document", name, key)
		}
	}
	s.stripGaps(route, r)
	in := &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route, Options: contractOptions}
	if err := openapi3filter.ValidateRequest(r.Context(), in); err != nil {
		s.complain("%s: request: %v", name, err)
	}
	status, body := s.answer(route.Operation)
	h := http.Header{"Content-Type": {"application/json"}}
	if err := openapi3filter.ValidateResponse(r.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: status, Header: h, Body: io.NopCloser(bytes.NewReader(body)), Options: contractOptions,
	}); err != nil {
		s.complain("%s: our answer: %v", name, err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// find looks a path up. Unlike a router it takes slashes at their word.
func (s *contract) find(r *http.Request) (*routers.Route, map[string]string) {
	var best *routers.Route
	var bestParams map[string]string
	got := strings.Split(r.URL.EscapedPath(), "/")
	for path, item := range s.doc.Paths.Map() {
		op := item.GetOperation(r.Method)
		params, ok := matchPath(strings.Split(path, "/"), got)
		if op != nil && ok && (best == nil || len(params) < len(bestParams)) {
			best = &routers.Route{Spec: s.doc, Path: path, PathItem: item, Method: r.Method, Operation: op}
			bestParams = params
		}
	}
	return best, bestParams
}

func matchPath(template, got []string) (map[string]string, bool) {
	if len(template) != len(got) {
		return nil, false
	}
	params := map[string]string{}
	for i, part := range template {
		if strings.HasPrefix(part, "{") && got[i] != "" {
			value, err := url.PathUnescape(got[i])
			if err != nil {
				return nil, false
			}
			params[strings.Trim(part, "{}")] = value
		} else if part != got[i] {
			return nil, false
		}
	}
	return params, true
}

// stripGaps takes what the copy does not know out of a body, and complains
// about any other property that is not in the document: most of its schemas
// let unknown ones pass.
func (s *contract) stripGaps(route *routers.Route, r *http.Request) {
	if route.Operation.RequestBody == nil {
		return
	}
	name := route.Operation.OperationID
	raw, _ := io.ReadAll(r.Body)
	var body map[string]any
	if err := json.Unmarshal(raw, &body); err != nil {
		s.complain("%s: body: %v", name, err)
	}
	known := map[string]bool{}
	properties(route.Operation.RequestBody.Value.Content.Get("application/json").Schema.Value, known)
	for key := range body {
		switch {
		case slices.Contains(gaps.body, name+" "+key):
			if known[key] {
				s.complain("%s: %s is in the document now, and no gap any more", name, key)
			}
			delete(body, key)
		case !known[key]:
			s.complain("%s: property %q is not in the document", name, key)
		}
	}
	raw, _ = json.Marshal(body)
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
}

func properties(schema *openapi3.Schema, known map[string]bool) {
	for key := range schema.Properties {
		known[key] = true
	}
	for _, variant := range slices.Concat(schema.AnyOf, schema.OneOf, schema.AllOf) {
		properties(variant.Value, known)
	}
}

// answer makes a success of an operation.
func (s *contract) answer(op *openapi3.Operation) (int, []byte) {
	for status, response := range op.Responses.Map() {
		var code int
		if _, err := fmt.Sscan(status, &code); err != nil || code/100 != 2 {
			continue
		}
		body, err := json.Marshal(example(response.Value.Content.Get("application/json").Schema.Value, 0)[0])
		if err != nil {
			panic(err)
		}
		return code, body
	}
	panic(op.OperationID + " has no success")
}

const deep = 16

// example makes values of a schema, one for each of its variants, with every
// property and nothing null, so that a field that is read by a wrong name shows.
func example(schema *openapi3.Schema, depth int) []any {
	if variants := slices.Concat(schema.OneOf, schema.AnyOf); len(variants) > 0 {
		var out []any
		for _, variant := range variants {
			if variant.Value.Type.Is("null") || slices.Contains(gaps.ambiguous, variant.Ref) {
				continue
			}
			out = append(out, example(variant.Value, depth+1)...)
			if depth > deep { // filters can hold filters
				break
			}
		}
		return out
	}
	switch {
	case schema.Const != nil:
		return []any{schema.Const}
	case len(schema.Enum) > 0:
		return []any{schema.Enum[0]}
	case schema.Type.Is("object"):
		object := map[string]any{}
		for key, property := range schema.Properties {
			object[key] = example(property.Value, depth+1)[0]
		}
		if extra := schema.AdditionalProperties.Schema; extra != nil {
			object[anID] = example(extra.Value, depth+1)[0]
		}
		return []any{object}
	case schema.Type.Is("array"):
		if len(schema.PrefixItems) > 0 { // a tuple
			var tuple []any
			for _, item := range schema.PrefixItems {
				tuple = append(tuple, example(item.Value, depth+1)[0])
			}
			return []any{tuple}
		}
		return []any{example(schema.Items.Value, depth+1)}
	case schema.Type.Is("boolean"):
		return []any{true}
	case schema.Type.Is("integer"), schema.Type.Is("number"):
		return []any{max(1, deref(schema.Min))}
	}
	if schema.Pattern != "" { // the only ones are decimals
		return []any{"1"}
	}
	switch schema.Format {
	case "uuid4", "uuid":
		return []any{anID}
	case "date-time":
		return []any{"2026-10-03T14:21:07.413341Z"}
	case "date":
		return []any{"2026-10-03"}
	case "email":
		return []any{"a@example.com"}
	case "uri":
		return []any{"https://example.com/"}
	}
	return []any{strings.Repeat("x", max(1, int(schema.MinLength)))}
}

func deref(f *float64) float64 {
	if f == nil {
		return 0
	}
	return *f
}
