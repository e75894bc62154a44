package box

import (
	"net/http"
	"slices"
	"strconv"
	"time"
)

func listCustomers(c *call) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		q := c.r.URL.Query()
		if q.Has("email") { // exact, but for case
			q.Set("email", foldEmail(q.Get("email")))
			c.r.URL.RawQuery = q.Encode()
		}
		return list(c, listing[Customer]{
			of: &b.customers, order: "-created_at",
			where: func(x *Customer) bool { return x.DeletedAt == nil },
			filters: map[string]func(*Customer) string{
				"email": func(x *Customer) string { return foldEmail(x.Email) },
				"active": func(x *Customer) string {
					return strconv.FormatBool(slices.ContainsFunc(b.subs.ofSeen(x.ID, c.at), billable))
				},
			},
			matches: map[string]func(*Customer, string) bool{
				"query": func(x *Customer, q string) bool { return contains(q, x.Name, x.Email, x.ExternalID) },
			},
			sorts: map[string]func(*Customer) string{
				"created_at": byCreation[Customer], "email": func(x *Customer) string { return x.Email }, "name": func(x *Customer) string { return x.Name },
			},
			meta: func(x *Customer) map[string]any { return x.Metadata }, render: b.customerJSON,
		})
	})
}

func billable(s Subscription) bool { return s.Billable() }

// customer finds the customer of the path as the replica sees it.
func (c *call) customer(at time.Time) (Customer, error) {
	id, ok := c.params["id"]
	if !ok {
		if id, ok = c.b.externals[c.params["external_id"]]; !ok {
			return Customer{}, notFound()
		}
	}
	x, ok := c.b.customers.seen(id, at)
	if !ok || x.DeletedAt != nil {
		return x, notFound()
	}
	return x, nil
}

func getCustomer(c *call) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		x, err := c.customer(c.at)
		if err != nil {
			return nil, err
		}
		return b.customerJSON(&x), nil
	})
}

// stateKept is how long Polar keeps a state in its cache.
const stateKept = time.Hour

// getState serves the state from a cache that the state_changed job refreshes,
// and fills it from the replica: it lags behind a purchase just made.
func getState(c *call) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		x, err := c.customer(c.at)
		if err != nil {
			return nil, err
		}
		j := b.stateJob(x.ID)
		if j.cached == nil || b.Now().Sub(j.cachedAt) >= stateKept {
			t := tx{b: b}
			t.emit("", b.stateJSON(&x, c.at))
			j.cached, j.cachedAt = t.events[0].Data, b.Now()
		}
		return j.cached, nil
	})
}

func createCustomer(c *call) (int, any, error) {
	var x Customer
	var err error
	if err = readFields(c, map[string]*string{"email": &x.Email, "external_id": &x.ExternalID, "name": &x.Name, "type": &x.Type}); err != nil {
		return 0, nil, err
	}
	if !slices.Contains([]string{"", "individual", "team"}, x.Type) {
		return 0, nil, requestError("literal_error", "Input should be 'individual' or 'team'", x.Type, "body", "type")
	}
	if x.Owner, err = c.owner(); err != nil {
		return 0, nil, err
	}
	if x.Type != "team" {
		if err = c.needs("email"); err != nil {
			return 0, nil, err
		}
	}
	if x.Metadata, err = field[map[string]any](c, "metadata"); err != nil {
		return 0, nil, err
	}
	if x.Address, err = field[*Address](c, "billing_address"); err != nil {
		return 0, nil, err
	}
	if x.Email != "" || x.Type != "team" {
		if err = checkEmail(x.Email, "email"); err != nil {
			return 0, nil, err
		}
	}
	if x, err = c.b.CreateCustomer(x); err != nil {
		return 0, nil, err
	}
	return created(c.b.customerJSON(&x), nil)
}

func updateCustomer(c *call) (int, any, error) {
	x, err := c.current()
	if err != nil {
		return 0, nil, err
	}
	var u CustomerUpdate
	for name, to := range map[string]**string{"email": &u.Email, "name": &u.Name, "external_id": &u.ExternalID, "type": &u.Type} {
		if *to, err = field[*string](c, name); err != nil {
			return 0, nil, err
		}
	}
	if u.Metadata, err = field[map[string]any](c, "metadata"); err != nil {
		return 0, nil, err
	}
	if x, err = c.b.UpdateCustomer(x.ID, u); err != nil {
		return 0, nil, err
	}
	return http.StatusOK, c.b.customerJSON(&x), nil
}

// current finds the customer of the path as a write does.
func (c *call) current() (Customer, error) {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	return c.customer(c.b.Now())
}

func deleteCustomer(c *call) (int, any, error) {
	x, err := c.current()
	if err == nil {
		err = c.b.DeleteCustomer(x.ID)
	}
	return http.StatusNoContent, nil, err
}

func getOrganization(c *call) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		if c.params["id"] != b.org.ID {
			return nil, notFound()
		}
		return b.organizationJSON(), nil
	})
}
