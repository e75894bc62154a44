package gateway

import (
	"testing"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar/box"
)

const organization = "org_acme"

// forAcme is Ada, who asks for her organization.
func forAcme() Visitor {
	v := adaVisits()
	v.User, v.Person = organization, v.User
	return v
}

// The organization's purchase is the organization's, and no person's.
func TestOrganizationBuys(t *testing.T) {
	s := newShop(t, box.Options{}, linkingEmail).connect()
	c := s.opens(forAcme(), s.pro.ID)
	made, ok := s.box.CustomerByExternalID(organization)
	if !ok || c.CustomerID != made.ID || made.Email != "ada@example.com" {
		t.Fatalf("sold to %q, which is %+v", c.CustomerID, made)
	}
	if back, _ := s.arrival(c); back.User != organization {
		t.Errorf("state %+v", back)
	}
	s.pays(c, "")
	s.box.Settle()
	s.lets(forAcme(), "pro", true)
	s.lets(Visitor{User: organization, Person: grace}, "pro", true)
	s.lets(adaVisits(), "pro", false)
	if _, err := s.g.OpenPortal(t.Context(), organization, ""); err != nil {
		t.Errorf("portal: %v", err)
	}
}

// A person's verified e-mail proves nothing about an organization: what the person
// has bought does not become that of all its members, neither at a gate nor at a
// checkout.
func TestEmailProvesNoOrganization(t *testing.T) {
	s := newShop(t, box.Options{}, linkingEmail).connect()
	s.sync()
	guest := s.buysAlone("ada@example.com", s.max.ID)
	s.lets(forAcme(), "max", false)
	p := s.purchase(s.pro.ID)
	p.Email = "billing@acme.example"
	c, err := s.g.OpenCheckout(t.Context(), forAcme(), p)
	if err != nil {
		t.Fatal(err)
	}
	held, _ := s.box.Checkout(c.ID)
	if held.CustomerID != "" || held.ExternalCustomerID != organization || held.CustomerEmail != p.Email {
		t.Errorf("customer %q, external %q, e-mail %q", held.CustomerID, held.ExternalCustomerID, held.CustomerEmail)
	}
	if now, _ := s.box.Customer(guest.ID); now.ExternalID != "" {
		t.Errorf("the person's customer is %q's now", now.ExternalID)
	}
	s.lets(forAcme(), "max", false)
	s.lets(adaVisits(), "max", true)
}

// Whoever has nobody to pay for them has nothing, and Polar is not asked about it:
// a question without a name would be one about everybody.
func TestNobodyPays(t *testing.T) {
	s := newShop(t, box.Options{}, linkingEmail).connect()
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.box.Settle()
	nobody := adaVisits()
	nobody.User, nobody.Person = "", ada
	s.box.SetTrouble(box.Trouble{Refuse: true})
	if d := s.comes(nobody, "pro"); d.Allowed || d.Reason != entitlement.ReasonNoSubscription {
		t.Errorf("%+v", d)
	}
}
