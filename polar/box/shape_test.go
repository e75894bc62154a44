package box

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// shape lists the paths of all keys. What is null or empty in either body is
// not compared deeper.
func shape(v any, at string, into map[string]bool, open map[string]bool) {
	switch v := v.(type) {
	case nil:
		open[at] = true
	case map[string]any:
		if len(v) == 0 {
			open[at] = true
		}
		for k, x := range v {
			if dynamic(at, k) {
				k = "*"
			}
			into[at+"."+k] = true
			shape(x, at+"."+k, into, open)
		}
	case []any:
		if len(v) == 0 {
			open[at+"[]"] = true
		}
		for _, x := range v {
			shape(x, at+"[]", into, open)
		}
	}
}

// dynamic says that a key is the merchant's, or an id.
func dynamic(at, key string) bool {
	return strings.HasSuffix(at, "metadata") || strings.HasSuffix(at, "properties") || len(key) == 36
}

func compare(t *testing.T, name string, want, got any) {
	t.Helper()
	a, b, open := map[string]bool{}, map[string]bool{}, map[string]bool{}
	shape(want, "", a, open)
	shape(got, "", b, open)
	diff := func(x, y map[string]bool, what string) {
		for k := range x {
			if y[k] || strings.HasSuffix(k, ".*") {
				continue
			}
			if !slices.ContainsFunc(prefixes(k), func(p string) bool { return open[p] }) {
				t.Errorf("%s: %s %s", name, what, k)
			}
		}
	}
	diff(a, b, "lacks")
	diff(b, a, "has too much:")
}

func prefixes(path string) []string {
	var out []string
	for i := range path {
		if path[i] == '.' || path[i] == '[' {
			out = append(out, path[:i])
			if strings.HasPrefix(path[i:], "[]") {
				out = append(out, path[:i+2])
			}
		}
	}
	return out
}

// everything lives through all lives and returns the last event of each type.
func everything(t *testing.T) map[string]Event {
	s := newShop(t, Options{})
	s.rarely() // first, so that the last event of a type is of an ordinary life
	sub, customer := s.buy(s.trial)
	s.Advance(15 * day)
	s.Cancel(sub.ID, "unused", "")
	s.Uncancel(sub.ID)
	s.ChangePlan(sub.ID, s.maxi.ID, "next_period")
	s.Pause(sub.ID, nil)
	s.AdvanceTo(s.sub(sub.ID).CurrentPeriodEnd.Add(time.Minute))
	s.Resume(sub.ID)
	s.Settle()
	s.SetCard(customer.ID, false)
	s.AdvanceTo(s.sub(sub.ID).CurrentPeriodEnd.Add(time.Minute))
	s.UpdateCard(customer.ID, true)
	s.Settle()
	s.Refund(Refund{OrderID: s.Orders(customer.ID)[1].ID})
	s.Revoke(sub.ID)
	s.Settle()
	s.DeleteCustomer(customer.ID)
	s.Settle()
	out := map[string]Event{}
	for _, e := range s.Events() {
		out[e.Type] = e
	}
	return out
}

func TestBodiesHaveExactlyPolarsKeys(t *testing.T) {
	last := everything(t)
	files, _ := filepath.Glob("../../testdata/polar/*.json")
	compared := map[string]bool{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var sample struct {
			Type string
			Data any
		}
		if strings.Contains(file, "openapi") || strings.Contains(file, "legacy") || strings.Contains(file, "vectors") ||
			strings.Contains(file, "seats") || strings.Contains(file, "seat_member") || json.Unmarshal(raw, &sample) != nil || sample.Type == "" {
			continue
		}
		e, ok := last[sample.Type]
		if !ok {
			continue
		}
		var got any
		if err := json.Unmarshal(e.Data, &got); err != nil {
			t.Fatal(err)
		}
		compared[sample.Type] = true
		compare(t, filepath.Base(file), sample.Data, got)
	}
	unsampled := []string{
		"checkout.created", "checkout.expired", "product.created", "product.updated", "benefit.created", "benefit.updated",
		"discount.created", "discount.updated", "discount.deleted", "member.updated", "refund.updated", "organization.updated",
	}
	for kind := range last {
		if compared[kind] == slices.Contains(unsampled, kind) {
			t.Error("sampled or not:", kind)
		}
	}
	if len(compared) < 30 {
		t.Errorf("only %d types compared: %v", len(compared), compared)
	}
}
