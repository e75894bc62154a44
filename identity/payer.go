package identity

import (
	"fmt"
	"slices"
	"strings"
)

// Manage says who may act for the paying party: whose value at Path is one of Values,
// or a list of strings that has one of them. Without Path: who pays for themselves.
type Manage struct {
	Path   string
	Values []string
}

// payer is where it stands who pays for somebody, and whether they may act for who pays.
type payer struct {
	customer []path   // nil: everyone pays for themselves
	manage   path     // of no use without managers
	managers []string // sorted; nil: nobody has another's say
}

func newPayer(customer []string, m Manage) (p payer, err error) {
	if slices.Contains(customer, "") || (m.Path == "") != (len(m.Values) == 0) || slices.Contains(m.Values, "") {
		return p, fmt.Errorf("%w: the first takes paths, the second a path and values, and none can be empty", ErrPayer)
	}
	if err := checkClaims(append(slices.Clone(customer), m.Path)...); err != nil {
		return p, err
	}
	for _, name := range append(slices.Clone(customer), m.Path) {
		if name != "" && slices.Contains(strings.Split(name, "."), "") {
			return p, fmt.Errorf("%w: %q has an empty step", ErrPayer, name)
		}
	}
	for _, name := range customer {
		p.customer = append(p.customer, newPath(name))
	}
	p.manage, p.managers = newPath(m.Path), slices.Compact(slices.Sorted(slices.Values(m.Values)))
	return p, nil
}

// in returns what names the paying party, nil if nothing does: apps write null or an
// empty text for no organization. named is false if it is
// not looked for.
func (p *payer) in(claims map[string]any) (value any, named bool) {
	for _, path := range p.customer {
		if value, _ := path.in(claims); value != nil && value != "" {
			return value, true
		}
	}
	return nil, p.customer != nil
}

// managedBy reports whether somebody may act for who pays. Where that can be others,
// who pays for themselves needs no role for it: roles are those of organizations.
func (p *payer) managedBy(id *Identity, claims map[string]any) bool {
	switch {
	case id.Customer == "":
		return false
	case id.Customer == id.User && (p.customer != nil || p.managers == nil):
		return true
	}
	value, _ := p.manage.in(claims)
	return namesAny(p.managers, value)
}
