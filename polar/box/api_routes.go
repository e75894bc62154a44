package box

import (
	"net/http"
	"slices"
)

const (
	scopeSubs      = "subscriptions:read subscriptions:write"
	scopeCustomers = "customers:read customers:write"
	scopeProducts  = "products:read products:write"
	scopeBenefits  = "benefits:read benefits:write"
	scopeHooks     = "webhooks:read webhooks:write"
	scopeMembers   = "members:read members:write"
)

// routes are the API's endpoints, filled in by init as handlers look them up.
var routes []route

func init() {
	const get, post, patch, del = http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete
	routes = []route{
		on(get, "/v1/organizations/{id}", "organizations:read organizations:write", getOrganization),
		on(patch, "/v1/organizations/{id}", "organizations:write", updateOrganization),
		on(get, "/v1/products/", scopeProducts, listProducts),
		on(post, "/v1/products/", "products:write", createProduct),
		on(get, "/v1/products/{id}", scopeProducts, getProduct),
		on(patch, "/v1/products/{id}", "products:write", updateProduct),
		on(post, "/v1/products/{id}/benefits", "products:write", setProductBenefits),
		on(get, "/v1/benefits/", scopeBenefits, listBenefits),
		on(post, "/v1/benefits/", "benefits:write", createBenefit),
		on(get, "/v1/benefits/{id}", scopeBenefits, getBenefit),
		on(patch, "/v1/benefits/{id}", "benefits:write", updateBenefit),
		on(get, "/v1/benefits/{id}/grants", scopeBenefits, listGrants),
		on(get, "/v1/benefit-grants/", scopeBenefits, listGrants),

		on(get, "/v1/customers/", scopeCustomers, listCustomers),
		on(post, "/v1/customers/", "customers:write", createCustomer),
		on(get, "/v1/customers/external/{external_id}", scopeCustomers, getCustomer),
		on(patch, "/v1/customers/external/{external_id}", "customers:write", updateCustomer),
		on(del, "/v1/customers/external/{external_id}", "customers:write", deleteCustomer),
		on(get, "/v1/customers/external/{external_id}/state", scopeCustomers, getState),
		on(get, "/v1/customers/{id}", scopeCustomers, getCustomer),
		on(patch, "/v1/customers/{id}", "customers:write", updateCustomer),
		on(del, "/v1/customers/{id}", "customers:write", deleteCustomer),
		on(get, "/v1/customers/{id}/state", scopeCustomers, getState),
		on(get, "/v1/members/", scopeMembers, listMembers),
		on(post, "/v1/customers/{id}/members", "members:write", createMember),
		on(get, "/v1/customers/{id}/members/{member_id}", scopeMembers, getMember),
		on(patch, "/v1/customers/{id}/members/{member_id}", "members:write", updateMember),
		on(del, "/v1/customers/{id}/members/{member_id}", "members:write", deleteMember),
		on(post, "/v1/customers/external/{external_id}/members", "members:write", createMember),
		on(get, "/v1/customers/external/{external_id}/members/{external_member_id}", scopeMembers, getMember),
		on(patch, "/v1/customers/external/{external_id}/members/{external_member_id}", "members:write", updateMember),
		on(del, "/v1/customers/external/{external_id}/members/{external_member_id}", "members:write", deleteMember),

		on(get, "/v1/checkouts/", "checkouts:read checkouts:write", listCheckouts),
		on(post, "/v1/checkouts/", "checkouts:write", createCheckout),
		on(get, "/v1/checkouts/{id}", "checkouts:read checkouts:write", getCheckout),
		on(patch, "/v1/checkouts/{id}", "checkouts:write", updateCheckout),

		on(get, "/v1/subscriptions/", scopeSubs, listSubscriptions),
		on(post, "/v1/subscriptions/", "subscriptions:write", createSubscription),
		on(get, "/v1/subscriptions/{id}", scopeSubs, getSubscription),
		on(patch, "/v1/subscriptions/{id}", "subscriptions:write", patchSubscription),
		on(del, "/v1/subscriptions/{id}", "subscriptions:write", revokeSubscription),

		on(get, "/v1/orders/", "orders:read", listOrders),
		on(get, "/v1/orders/{id}", "orders:read", getOrder),
		on(get, "/v1/refunds/", "refunds:read refunds:write", listRefunds),
		on(post, "/v1/refunds/", "refunds:write", createRefund),
		on(get, "/v1/disputes/", "disputes:read disputes:write", listDisputes),
		on(get, "/v1/disputes/{id}", "disputes:read disputes:write", getDispute),
		on(get, "/v1/metrics/", "metrics:read", getMetrics),

		on(post, "/v1/customer-sessions/", "customer_sessions:write", createSession),

		on(get, "/v1/webhooks/endpoints", scopeHooks, listEndpoints),
		on(post, "/v1/webhooks/endpoints", "webhooks:write", createEndpoint),
		on(get, "/v1/webhooks/endpoints/{id}", scopeHooks, getEndpoint),
		on(patch, "/v1/webhooks/endpoints/{id}", "webhooks:write", updateEndpoint),
		on(del, "/v1/webhooks/endpoints/{id}", "webhooks:write", deleteEndpoint),
		on(patch, "/v1/webhooks/endpoints/{id}/secret", "webhooks:write", resetSecret),
		on(get, "/v1/webhooks/deliveries", scopeHooks, listDeliveries),
		on(post, "/v1/webhooks/events/{id}/redeliver", "webhooks:write", redeliver),
	}
	routes = slices.Concat(routes, portalRoutes(), seatRoutes(), discountRoutes())
}
