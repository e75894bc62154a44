package box

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/caddy-polar/caddy-polar/polar/box/internal/contract"
)

// asked is a box that is asked once.
type asked struct {
	*shop
	token string
	paths map[string]string // what is in a path, by its name or by the segment before it
	known map[string]any    // properties that name something
}

// ask opens a box for one request. Some want a customer that is a team.
func ask(t *testing.T, c *contract.Checker, r *route, team bool) *asked {
	t.Helper()
	s := openShop(t, c, Options{})
	sub, customer := s.buy(s.trial)
	once := must[Checkout](t)(s.Buy(customer.ExternalID, customer.Email, s.once.ID))
	order := slices.IndexFunc(s.Orders(customer.ID), func(o Order) bool { return o.CheckoutID == once.ID })
	orderID := s.Orders(customer.ID)[order].ID
	free := s.AddProduct(Product{Name: "Free", Interval: "month"})
	productID := s.maxi.ID
	if r.method == http.MethodPost {
		productID = free.ID // what the API may subscribe to
	}
	if team {
		sub, customer = s.buySeats(s.team(), 3)
	}
	member := must[Member](t)(s.AddMember(Member{CustomerID: s.teamOf(customer).ID, Email: "m@example.org", ExternalID: "m"}))
	open := must[Checkout](t)(s.CreateCheckout(Checkout{ProductIDs: []string{s.pro.ID, s.maxi.ID}}))
	hook := s.AddEndpoint(Endpoint{URL: "http://127.0.0.1:1", Events: []string{"product.updated"}})
	discount := s.AddDiscount(Discount{Name: "Ten", Code: "TEN", BasisPoints: 1000, Duration: "once"})
	later := stamp(s.Now().Add(90 * day))
	a := &asked{
		shop: s, token: s.NewToken(),
		paths: map[string]string{
			"subscriptions": sub.ID, "customers": customer.ID, "external": customer.ExternalID, "endpoints": hook.ID,
			"checkouts": open.ID, "organizations": s.org.ID, "products": s.pro.ID, "benefits": s.pro.BenefitIDs[0],
			"discounts": discount.ID, "members": member.ID, "external_member_id": "m",
		},
		known: map[string]any{
			"products": []any{s.pro.ID}, "product_id": productID, "customer_id": customer.ID, "organization_id": s.org.ID,
			"external_customer_id": customer.ExternalID, "amount": 5.0, "events": []any{"order.paid"}, "resumes_at": later,
			"trial_end": later, "current_billing_period_end": later, "subscription_id": sub.ID, "order_id": orderID,
			"discount_id": discount.ID, "benefits": []any{s.pro.BenefitIDs[0]}, "member_id": member.ID, "external_member_id": "m",
			"seats": 4, "basis_points": 1000,
		},
	}
	if team {
		seat := must[Seat](t)(s.AssignSeat(SeatAssignment{SubscriptionID: sub.ID, Email: "seat@example.org"}))
		a.known["invitation_token"], _ = s.Invitation(seat.ID)
	}
	if len(r.scopes) == 0 {
		a.token = s.ownerToken(customer.ID)
	}
	return a
}

// teamOf returns a customer that can have members.
func (s *shop) teamOf(c Customer) Customer {
	if c.Type == "team" {
		return c
	}
	return must[Customer](s.t)(s.CreateCustomer(Customer{Email: "team@example.org", Type: "team"}))
}

func (s *shop) ownerToken(customerID string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, _ := s.owner(customerID)
	return s.newMemberSession(customerID, m.ID, "").token
}

// wantsTeam says which requests are about seats and members.
func wantsTeam(r *route, property string) bool {
	return property == "seats" || slices.ContainsFunc(r.pattern, func(part string) bool { return strings.Contains(part, "seats") || part == "members" })
}

// send makes the request and returns the status and the error.
func (a *asked) send(r *route, body map[string]any) (int, string, []Issue) {
	a.t.Helper()
	path := slices.Clone(r.pattern)
	for i, part := range path {
		if strings.HasPrefix(part, "{") {
			id := cmp.Or(a.paths[strings.Trim(part, "{}")], a.paths[r.pattern[i-1]])
			if id == "" {
				a.t.Fatalf("no id for %v", r.pattern)
			}
			path[i] = id
		}
	}
	raw, err := json.Marshal(body)
	if err != nil {
		a.t.Fatal(err)
	}
	req := httptest.NewRequest(r.method, strings.Join(path, "/"), strings.NewReader(string(raw)))
	req.Header.Set("Authorization", "Bearer "+a.token)
	rec := httptest.NewRecorder()
	a.contract.Handler(a).ServeHTTP(rec, req)
	var said struct {
		Error  string
		Detail json.RawMessage
	}
	var issues []Issue
	if json.Unmarshal(rec.Body.Bytes(), &said) == nil {
		_ = json.Unmarshal(said.Detail, &issues)
	}
	return rec.Code, said.Error, issues
}

// variants are the bodies that a request can have.
func variants(s *openapi3.Schema) []*openapi3.Schema {
	if len(s.AnyOf)+len(s.OneOf) == 0 {
		return []*openapi3.Schema{s}
	}
	var out []*openapi3.Schema
	for _, v := range slices.Concat(s.AnyOf, s.OneOf) {
		out = append(out, variants(v.Value)...)
	}
	return out
}

// values are examples of all that a property may be.
func (a *asked) values(name string, s *openapi3.Schema) []any {
	var out []any
	switch known, ok := a.known[name]; {
	case ok:
		out = []any{known}
	case len(s.AnyOf)+len(s.OneOf) > 0:
		for _, v := range variants(s) {
			out = append(out, a.values("", v)...)
		}
	case len(s.Enum) > 0:
		out = slices.Clone(s.Enum[:min(len(s.Enum), 12)]) // there are very many currencies
	case s.Type.Is("boolean"):
		out = []any{true, false}
	case s.Type.Is("integer"), s.Type.Is("number"):
		out = []any{1}
	case s.Type.Is("array"):
		out = []any{[]any{a.values("", s.Items.Value)[0]}}
	case s.Type.Is("object"):
		out = []any{a.object(s)}
		if extra := s.AdditionalProperties.Schema; extra != nil && s.Properties == nil {
			for _, v := range a.values("", extra.Value) {
				out = append(out, map[string]any{"key": v})
			}
		}
	case s.Type.Is("string"):
		out = []any{textOf(s)}
	case s.Type.Is("null"):
		out = []any{nil}
	}
	if s.Nullable {
		out = append(out, nil)
	}
	return out
}

func textOf(s *openapi3.Schema) string {
	switch s.Format {
	case "uuid4", "uuid":
		return "0f4a2c0e-93b7-4f0e-8a51-6a2d0d5f9c11"
	case "date-time":
		return "2027-03-01T00:00:00Z"
	case "email":
		return "new@example.org"
	case "uri":
		return "https://app.example/x"
	}
	return "https://app.example/y" // some texts without a format are URLs
}

// unsupported is what the box has not, and says so.
func unsupported(i Issue) bool { return strings.Contains(strings.ToLower(i.Msg), "the box") }

// object has what an object must have.
func (a *asked) object(s *openapi3.Schema) map[string]any {
	out := map[string]any{}
	for _, name := range s.Required {
		out[name] = a.values(name, s.Properties[name].Value)[0]
	}
	return out
}

// base is the least that a body must have, for one of its properties to be sent.
func (a *asked) base(r *route, variant *openapi3.Schema, property string) map[string]any {
	out := a.object(variant)
	switch path := strings.Join(r.pattern, "/"); {
	case strings.HasSuffix(path, "-seats"), strings.HasSuffix(path, "/seats"):
		out["subscription_id"], out["email"] = a.paths["subscriptions"], "s@example.org"
	case out["type"] == "team" && property != "owner": // its description says so
		out["owner"] = map[string]any{"email": "o@example.org"}
	case out["type"] == "team":
		out["email"] = "o@example.org"
	}
	return out
}

// merchants are what only sets up a shop. The box has less there, and refuses
// what it has not.
var merchants = []string{"products", "benefits", "discounts", "organizations"}

// neverAccepted are properties that the box has to refuse, as it is here.
var neverAccepted = map[string]string{
	"PATCH /v1/subscriptions/{id} resume":                         "it is not paused",
	"PATCH /v1/customer-portal/subscriptions/{id} resume":         "it is not paused",
	"PATCH /v1/subscriptions/{id} pending_update":                 "nothing is scheduled",
	"PATCH /v1/customer-portal/subscriptions/{id} pending_update": "nothing is scheduled",
}

// TestEveryDocumentedBodyIsUnderstood sends each property of each body that the
// document knows, with each type that it may have. None may be taken for
// malformed, and all must be accepted in one way at least.
func TestEveryDocumentedBodyIsUnderstood(t *testing.T) {
	c, sent, refused := contract.New(t), 0, 0
	for i := range routes {
		r := &routes[i]
		name, accepted := r.method+" "+strings.Join(r.pattern, "/"), map[string]bool{}
		schema := c.Request(r.method, strings.Join(r.pattern, "/"))
		if schema == nil || slices.Contains(merchants, r.pattern[2]) {
			continue
		}
		for _, variant := range variants(schema) {
			for _, property := range slices.Sorted(maps.Keys(variant.Properties)) {
				of := variant.Properties[property].Value
				for n := 0; ; n++ {
					a := ask(t, c, r, wantsTeam(r, property) || slices.Contains(variant.Required, "seats"))
					values := a.values(property, of)
					if n == len(values) {
						break
					}
					body := a.base(r, variant, property)
					body[property] = values[n]
					status, code, issues := a.send(r, body)
					sent++
					lacks := slices.ContainsFunc(issues, unsupported)
					if lacks {
						refused++
						t.Log(name, property, issues[0].Msg)
					}
					accepted[property] = accepted[property] || status < 300 || lacks
					if status >= 500 || code == "RequestValidationError" && !lacks {
						t.Errorf("%s %v: %d %s %v", name, body, status, code, issues)
					}
				}
			}
		}
		for property, ok := range accepted {
			why := neverAccepted[name+" "+property]
			if ok == (why != "") {
				t.Errorf("%s: %s was accepted: %t %s", name, property, ok, why)
			}
		}
	}
	if sent < 400 || refused > sent/10 {
		t.Error(sent, "bodies,", refused, "not supported")
	}
	t.Log(sent, "bodies,", refused, "not supported")
}

// Some bodies may have nothing that Polar does not know. In others Polar ignores
// it, and the box may still say so, in the same words.
func TestExtraFields(t *testing.T) {
	c, refused, ignored := contract.New(t), 0, 0
	for i := range routes {
		r := &routes[i]
		schema := c.Request(r.method, strings.Join(r.pattern, "/"))
		if schema == nil {
			continue
		}
		for _, variant := range variants(schema) {
			team := wantsTeam(r, "") || slices.Contains(variant.Required, "seats")
			a := ask(t, c, r, team)
			want, wantCode, _ := a.send(r, a.object(variant))
			a = ask(t, c, r, team)
			body := a.object(variant)
			body["nonsense"] = "x"
			status, code, issues := a.send(r, body)
			forbidden := status == http.StatusUnprocessableEntity && code == "RequestValidationError" && len(issues) == 1 &&
				issues[0].Type == "extra_forbidden" && slices.Equal(issues[0].Loc, []any{"body", "nonsense"})
			switch {
			case forbidden:
				refused++
			case contract.Open(variant) && status == want && code == wantCode:
				ignored++
			default:
				t.Errorf("%s %v: %v: %d %s %v, without the extra field %d %s", r.method, r.pattern, body, status, code, issues, want, wantCode)
			}
		}
	}
	if refused < 14 || ignored < 10 {
		t.Error(refused, "refused,", ignored, "ignored")
	}
	t.Log(refused, "refused,", ignored, "ignored")
}
