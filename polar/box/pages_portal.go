package box

import (
	"net/http"
	"net/url"
)

type portalItem struct {
	Subscription
	Product, Pending Product
	Live             bool
}

// portalPage is the customer portal: GET shows, POST acts and shows again.
func (b *Box) portalPage(w http.ResponseWriter, r *http.Request) {
	token := r.URL.Query().Get("customer_session_token")
	b.mu.Lock()
	s := b.liveSession(token)
	b.mu.Unlock()
	if s == nil {
		sorry(w, http.StatusUnauthorized, "This link to the portal has expired.")
		return
	}
	status, problem := http.StatusOK, ""
	if r.Method == http.MethodPost {
		r.Body = http.MaxBytesReader(w, r.Body, 1<<16)
		err := b.mayAct(s)
		if err == nil {
			err = b.portalAction(s.customerID, r.PostFormValue("subscription"), r.PostFormValue("action"), r.PostFormValue("product"))
		}
		if err == nil {
			http.Redirect(w, r, r.URL.Path+"?customer_session_token="+url.QueryEscape(token), http.StatusSeeOther)
			return
		}
		status, problem = refusalText(err)
	}
	show(w, status, "portal.html", b.portalData(s, problem))
}

func (b *Box) mayAct(s *session) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mayPay(s)
}

func (b *Box) portalData(s *session, problem string) map[string]any {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, _ := b.customers.get(s.customerID)
	var items []portalItem
	for _, sub := range b.subs.of(c.ID) {
		item := portalItem{Subscription: sub, Live: sub.Billable()}
		item.Product, _ = b.products.get(sub.ProductID)
		if sub.Pending != nil {
			item.Pending, _ = b.products.get(sub.Pending.ProductID)
		}
		items = append(items, item)
	}
	var plans []Product
	for _, p := range b.products.all() {
		if p.Interval != "" && !p.Archived {
			plans = append(plans, p)
		}
	}
	return map[string]any{
		"Customer": c, "Items": items, "Plans": plans, "Problem": problem, "ReturnURL": s.returnURL, "Organization": b.org.Name, "Pays": !c.declines,
	}
}

// portalAction does what a customer may do with what is the customer's.
func (b *Box) portalAction(customerID, id, action, product string) error {
	switch action {
	case "card":
		return b.UpdateCard(customerID, true)
	case "bad_card":
		return b.UpdateCard(customerID, false)
	}
	s, ok := b.Subscription(id)
	if !ok || s.CustomerID != customerID {
		return notFound()
	}
	var err error
	switch action {
	case "cancel":
		_, err = b.Cancel(id, "", "")
	case "uncancel":
		_, err = b.Uncancel(id)
	case "change":
		err = b.portalPlan(customerID, id, product)
	case "drop":
		_, err = b.DropPending(id)
	case "pause":
		_, err = b.Pause(id, nil)
	case "unpause":
		_, err = b.Unpause(id)
	case "resume":
		_, err = b.Resume(id)
	default:
		err = notFound()
	}
	return err
}
