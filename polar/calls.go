package polar

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The calls below are Polar's, with its exact paths: some end in a slash, some
// do not, and a redirect from one to the other is not followed.
//
// Source: https://polar.sh/docs/api-reference/2026-10/introduction and the OpenAPI
// document that the tests check each call against.

// CreateCheckout opens a checkout. A customer that is unknown, an e-mail whose
// domain does not exist and the like are ErrInvalid.
func (c *Client) CreateCheckout(ctx context.Context, body CheckoutCreate) (Answer[CheckoutSession], error) {
	return call[CheckoutSession](ctx, c, request{method: http.MethodPost, path: "/v1/checkouts/", body: body})
}

// GetCheckout reads a checkout.
func (c *Client) GetCheckout(ctx context.Context, id string) (Answer[CheckoutSession], error) {
	return call[CheckoutSession](ctx, c, get("/v1/checkouts/{id}", id))
}

// ListSubscriptions lists subscriptions, those of ended ones included.
func (c *Client) ListSubscriptions(ctx context.Context, f SubscriptionFilter, p Paging) (Page[Subscription], error) {
	q := params{}.list("status", f.Status).set("customer_id", f.CustomerID).
		set("external_customer_id", f.ExternalCustomerID).list("product_id", f.ProductID).
		time("started_after", f.StartedAfter).metadata(f.Metadata)
	return page[Subscription](ctx, c, "/v1/subscriptions/", q, p)
}

// GetSubscription reads a subscription.
func (c *Client) GetSubscription(ctx context.Context, id string) (Answer[Subscription], error) {
	return call[Subscription](ctx, c, get("/v1/subscriptions/{id}", id))
}

// UpdateSubscription makes one change as the merchant. ErrConflict: an update
// is under way, or the state does not allow it.
func (c *Client) UpdateSubscription(ctx context.Context, id string, change SubscriptionChange) (Answer[Subscription], error) {
	return call[Subscription](ctx, c, request{
		method: http.MethodPatch, path: "/v1/subscriptions/{id}", id: id, body: change,
	})
}

// RevokeSubscription ends a subscription now.
func (c *Client) RevokeSubscription(ctx context.Context, id string) (Answer[Subscription], error) {
	return call[Subscription](ctx, c, request{method: http.MethodDelete, path: "/v1/subscriptions/{id}", id: id})
}

// ListOrders lists orders.
func (c *Client) ListOrders(ctx context.Context, f OrderFilter, p Paging) (Page[Order], error) {
	q := params{}.list("status", f.Status).set("customer_id", f.CustomerID).
		set("external_customer_id", f.ExternalCustomerID).list("product_id", f.ProductID).
		set("checkout_id", f.CheckoutID).set("subscription_id", f.SubscriptionID).
		set("product_billing_type", f.BillingType).time("created_after", f.CreatedAfter).metadata(f.Metadata)
	return page[Order](ctx, c, "/v1/orders/", q, p)
}

// GetOrder reads an order.
func (c *Client) GetOrder(ctx context.Context, id string) (Answer[Order], error) {
	return call[Order](ctx, c, get("/v1/orders/{id}", id))
}

// ListRefunds lists refunds.
func (c *Client) ListRefunds(ctx context.Context, f RefundFilter, p Paging) (Page[Refund], error) {
	q := params{}.set("order_id", f.OrderID).set("subscription_id", f.SubscriptionID).
		set("customer_id", f.CustomerID).set("external_customer_id", f.ExternalCustomerID).flag("succeeded", f.Succeeded)
	return page[Refund](ctx, c, "/v1/refunds/", q, p)
}

// ListDisputes lists disputes.
func (c *Client) ListDisputes(ctx context.Context, f DisputeFilter, p Paging) (Page[OrderDispute], error) {
	q := params{}.set("order_id", f.OrderID).list("status", f.Status)
	return page[OrderDispute](ctx, c, "/v1/disputes/", q, p)
}

// ListBenefitGrants lists grants.
func (c *Client) ListBenefitGrants(ctx context.Context, f BenefitGrantFilter, p Paging) (Page[BenefitGrant], error) {
	q := params{}.set("customer_id", f.CustomerID).set("external_customer_id", f.ExternalCustomerID).
		flag("is_granted", f.IsGranted)
	return page[BenefitGrant](ctx, c, "/v1/benefit-grants/", q, p)
}

// ListCustomers lists customers.
func (c *Client) ListCustomers(ctx context.Context, f CustomerFilter, p Paging) (Page[CustomerProfile], error) {
	q := params{}.set("email", f.Email).set("query", f.Query)
	return page[CustomerProfile](ctx, c, "/v1/customers/", q, p)
}

// GetCustomer reads a customer by Polar's id.
func (c *Client) GetCustomer(ctx context.Context, id string) (Answer[CustomerProfile], error) {
	return call[CustomerProfile](ctx, c, get("/v1/customers/{id}", id))
}

// GetCustomerByExternalID reads the customer of a user. Polar takes the id as
// one segment of the path and decodes %2F before it splits, so ids that hold a
// slash are searched in the list. A dot, or two, cannot be asked for at all.
func (c *Client) GetCustomerByExternalID(ctx context.Context, externalID string) (Answer[CustomerProfile], error) {
	r := get("/v1/customers/external/{external_id}", externalID)
	if externalID == "." || externalID == ".." {
		return Answer[CustomerProfile]{}, r.fail(ErrNotFound, "no path can name this external id")
	}
	if !strings.Contains(externalID, "/") {
		return call[CustomerProfile](ctx, c, r)
	}
	for p, err := range Pages(ctx, c.ListCustomers, CustomerFilter{Query: externalID}, Paging{}) {
		if err != nil {
			return Answer[CustomerProfile]{}, err
		}
		for _, customer := range p.Items {
			if customer.ExternalID == externalID {
				return Answer[CustomerProfile]{Item: customer, AsOf: p.AsOf}, nil
			}
		}
	}
	return Answer[CustomerProfile]{}, r.fail(ErrNotFound, "no customer in Polar's list has this external id")
}

// CreateCustomer makes a customer. ErrInvalid if the e-mail or external id is
// taken.
func (c *Client) CreateCustomer(ctx context.Context, body CustomerCreate) (Answer[CustomerProfile], error) {
	return call[CustomerProfile](ctx, c, request{method: http.MethodPost, path: "/v1/customers/", body: body})
}

// UpdateCustomer completes a customer.
func (c *Client) UpdateCustomer(ctx context.Context, id string, body CustomerUpdate) (Answer[CustomerProfile], error) {
	return call[CustomerProfile](ctx, c, request{
		method: http.MethodPatch, path: "/v1/customers/{id}", id: id, body: body,
	})
}

// CreateCustomerSession opens a session. An unknown customer is ErrInvalid.
func (c *Client) CreateCustomerSession(ctx context.Context, body CustomerSessionCreate) (Answer[CustomerSession], error) {
	return call[CustomerSession](ctx, c, request{method: http.MethodPost, path: "/v1/customer-sessions/", body: body})
}

// ListProducts lists products.
func (c *Client) ListProducts(ctx context.Context, f ProductFilter, p Paging) (Page[Product], error) {
	q := params{}.list("id", f.ID).flag("is_archived", f.IsArchived)
	return page[Product](ctx, c, "/v1/products/", q, p)
}

// GetProduct reads a product.
func (c *Client) GetProduct(ctx context.Context, id string) (Answer[Product], error) {
	return call[Product](ctx, c, get("/v1/products/{id}", id))
}

// ListBenefits lists benefits, those that were deleted not included.
func (c *Client) ListBenefits(ctx context.Context, f BenefitFilter, p Paging) (Page[Benefit], error) {
	return page[Benefit](ctx, c, "/v1/benefits/", params{}.list("id", f.ID), p)
}

// ListWebhookEndpoints lists the organization's endpoints.
func (c *Client) ListWebhookEndpoints(ctx context.Context, p Paging) (Page[WebhookEndpoint], error) {
	return page[WebhookEndpoint](ctx, c, "/v1/webhooks/endpoints", params{}, p)
}

// CreateWebhookEndpoint makes an endpoint. Its secret comes with the answer.
func (c *Client) CreateWebhookEndpoint(ctx context.Context, body WebhookEndpointCreate) (Answer[WebhookEndpoint], error) {
	return call[WebhookEndpoint](ctx, c, request{method: http.MethodPost, path: "/v1/webhooks/endpoints", body: body})
}

// UpdateWebhookEndpoint changes an endpoint, or enables it again.
func (c *Client) UpdateWebhookEndpoint(ctx context.Context, id string, body WebhookEndpointUpdate) (Answer[WebhookEndpoint], error) {
	return call[WebhookEndpoint](ctx, c, request{
		method: http.MethodPatch, path: "/v1/webhooks/endpoints/{id}", id: id, body: body,
	})
}

// ListDeliveries lists attempts to deliver, newest first. Events that were
// never attempted are not in it.
func (c *Client) ListDeliveries(ctx context.Context, f DeliveryFilter, p Paging) (Page[WebhookDelivery], error) {
	q := params{}.set("endpoint_id", f.EndpointID).time("start_timestamp", f.Start).time("end_timestamp", f.End).
		flag("succeeded", f.Succeeded).list("event_type", f.EventType)
	return page[WebhookDelivery](ctx, c, "/v1/webhooks/deliveries", q, p)
}

// Redeliver asks Polar to send an event again.
func (c *Client) Redeliver(ctx context.Context, eventID string) error {
	_, err := call[struct{}](ctx, c, request{
		method: http.MethodPost, path: "/v1/webhooks/events/{id}/redeliver", id: eventID, silent: true,
	})
	return err
}

// GetMetrics reads the organization's numbers.
func (c *Client) GetMetrics(ctx context.Context, m MetricsQuery) (Answer[Metrics], error) {
	q := params{}.set("start_date", m.Start.Format(time.DateOnly)).set("end_date", m.End.Format(time.DateOnly)).
		set("interval", m.Interval).set("timezone", m.Timezone).list("product_id", m.ProductID).
		set("customer_id", m.CustomerID).set("billing_type", m.BillingType).list("metrics", m.Metrics)
	return call[Metrics](ctx, c, request{method: http.MethodGet, path: "/v1/metrics/", query: url.Values(q)})
}

// ListSeats lists the seats of a subscription or order. There are no pages.
func (c *Client) ListSeats(ctx context.Context, f SeatFilter) (Answer[Seats], error) {
	return call[Seats](ctx, c, request{method: http.MethodGet, path: "/v1/customer-seats", query: f.query()})
}

// AssignSeat invites somebody to a seat, or gives it at once. ErrNoSeat and
// ErrSeatTaken say why not.
func (c *Client) AssignSeat(ctx context.Context, body SeatAssign) (Answer[Seat], error) {
	return call[Seat](ctx, c, request{method: http.MethodPost, path: "/v1/customer-seats", body: body})
}

// RevokeSeat takes a seat away.
func (c *Client) RevokeSeat(ctx context.Context, id string) (Answer[Seat], error) {
	return call[Seat](ctx, c, request{method: http.MethodDelete, path: "/v1/customer-seats/{seat_id}", id: id})
}

// ListMembers lists the members of a customer.
func (c *Client) ListMembers(ctx context.Context, f MemberFilter, p Paging) (Page[Member], error) {
	q := params{}.set("customer_id", f.CustomerID).set("external_customer_id", f.ExternalCustomerID).set("role", f.Role)
	return page[Member](ctx, c, "/v1/members/", q, p)
}

// Portal calls Polar as a customer, whose rights it has and no others.
//
// Source: https://polar.sh/docs/api-reference/2026-10/customer-sessions/create-customer-session
type Portal struct {
	client *Client
	token  string
}

// Portal acts with the token of a customer session. Such calls do not count
// against the organization's limit.
func (c *Client) Portal(session Secret) *Portal {
	return &Portal{client: c, token: string(session)}
}

// String keeps the token out of formatted output.
func (p *Portal) String() string { return "polar portal" }

// GoString keeps the token out of formatted output.
func (p *Portal) GoString() string { return p.String() }

// ListSubscriptions lists the customer's own subscriptions.
func (p *Portal) ListSubscriptions(ctx context.Context, f PortalFilter, paging Paging) (Page[PortalSubscription], error) {
	q := params{}.list("product_id", f.ProductID).flag("active", f.Active)
	return readPage[PortalSubscription](ctx, p.client, p.as(request{
		method: http.MethodGet, path: "/v1/customer-portal/subscriptions/", query: q.paging(paging),
	}))
}

// GetSubscription reads one of the customer's own subscriptions.
func (p *Portal) GetSubscription(ctx context.Context, id string) (Answer[PortalSubscription], error) {
	return call[PortalSubscription](ctx, p.client, p.as(get("/v1/customer-portal/subscriptions/{id}", id)))
}

// UpdateSubscription makes one change as the customer, within what the
// merchant's settings let customers do.
func (p *Portal) UpdateSubscription(ctx context.Context, id string, change PortalChange) (Answer[PortalSubscription], error) {
	return call[PortalSubscription](ctx, p.client, p.as(request{
		method: http.MethodPatch, path: "/v1/customer-portal/subscriptions/{id}", id: id, body: change,
	}))
}

// GetUser reads whose session it is.
func (p *Portal) GetUser(ctx context.Context) (Answer[PortalUser], error) {
	return call[PortalUser](ctx, p.client, p.as(get("/v1/customer-portal/customer-session/user", "")))
}

// ListSeats lists the seats of what the customer has bought.
func (p *Portal) ListSeats(ctx context.Context, f SeatFilter) (Answer[Seats], error) {
	return call[Seats](ctx, p.client, p.as(request{
		method: http.MethodGet, path: "/v1/customer-portal/seats", query: f.query(),
	}))
}

// InviteToSeat invites somebody to a seat. ErrNoSeat and ErrSeatTaken say why
// not.
func (p *Portal) InviteToSeat(ctx context.Context, body SeatInvite) (Answer[Seat], error) {
	return call[Seat](ctx, p.client, p.as(request{method: http.MethodPost, path: "/v1/customer-portal/seats", body: body}))
}

// ResendInvitation sends an invitation again. ErrConflict: it is none any more.
func (p *Portal) ResendInvitation(ctx context.Context, id string) (Answer[Seat], error) {
	return call[Seat](ctx, p.client, p.as(request{
		method: http.MethodPost, path: "/v1/customer-portal/seats/{seat_id}/resend", id: id,
	}))
}

// RevokeSeat takes a seat away.
func (p *Portal) RevokeSeat(ctx context.Context, id string) (Answer[Seat], error) {
	return call[Seat](ctx, p.client, p.as(request{
		method: http.MethodDelete, path: "/v1/customer-portal/seats/{seat_id}", id: id,
	}))
}

func (p *Portal) as(r request) request {
	r.portal, r.token = true, p.token
	return r
}

// Pages reads a list page by page, from Paging.Page on, as a range loop asks
// for them:
//
//	for page, err := range polar.Pages(ctx, client.ListOrders, polar.OrderFilter{}, polar.Paging{}) {
//
// Pages are as large as Polar allows unless Limit says otherwise. An error is
// the last thing that comes.
func Pages[F, T any](
	ctx context.Context, list func(context.Context, F, Paging) (Page[T], error), filter F, paging Paging,
) iter.Seq2[Page[T], error] {
	if paging.Limit == 0 {
		paging.Limit = 100
	}
	return func(yield func(Page[T], error) bool) {
		for paging := paging; ; paging.Page++ {
			paging.Page = max(paging.Page, 1)
			p, err := list(ctx, filter, paging)
			if !yield(p, err) || err != nil || len(p.Items) == 0 || paging.Page >= p.MaxPage {
				return
			}
		}
	}
}

func get(path, id string) request {
	return request{method: http.MethodGet, path: path, id: id}
}

func page[T any](ctx context.Context, c *Client, path string, q params, p Paging) (Page[T], error) {
	return readPage[T](ctx, c, request{method: http.MethodGet, path: path, query: q.paging(p)})
}

func readPage[T any](ctx context.Context, c *Client, r request) (Page[T], error) {
	a, err := call[list[T]](ctx, c, r)
	return Page[T]{
		Items: a.Item.Items, TotalCount: a.Item.Pagination.TotalCount, MaxPage: a.Item.Pagination.MaxPage, AsOf: a.AsOf,
	}, err
}

// params is a query that is written field by field; what is not set is left
// out.
type params url.Values

func (q params) set(name, value string) params {
	if value != "" {
		q[name] = []string{value}
	}
	return q
}

func (q params) list(name string, values []string) params {
	if len(values) > 0 {
		q[name] = values
	}
	return q
}

func (q params) flag(name string, value *bool) params {
	if value != nil {
		q[name] = []string{strconv.FormatBool(*value)}
	}
	return q
}

func (q params) time(name string, t time.Time) params {
	if !t.IsZero() {
		q[name] = []string{t.UTC().Format(time.RFC3339Nano)}
	}
	return q
}

func (q params) metadata(pairs map[string]string) params {
	for key, value := range pairs {
		q["metadata["+key+"]"] = []string{value}
	}
	return q
}

func (q params) paging(p Paging) url.Values {
	if p.Page > 0 {
		q.set("page", strconv.Itoa(p.Page))
	}
	if p.Limit > 0 {
		q.set("limit", strconv.Itoa(p.Limit))
	}
	return url.Values(q.list("sorting", p.Sorting))
}
