package entitlement_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	ent "github.com/caddy-polar/caddy-polar/entitlement"
)

// What is remembered of an account is what Decide says of it, at every moment and
// for every requirement.
func TestPropertyStanding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, r := ent.NewAccount("u", drawFacts(t)), drawRules(t)
		other := *r // as after a sync
		other.ConfirmedAt = drawNow(t)
		for range 8 {
			now := drawNow(t)
			rules := r
			if rapid.IntRange(0, 3).Draw(t, "confirmed") == 0 {
				rules = &other
			}
			s := a.Standing(rules, now)
			var open []string
			for i := range rules.Plans {
				if a.Opens(i, rules, now) {
					open = append(open, rules.Plans[i].Name)
				}
			}
			if s.Open != strings.Join(open, ",") || s.Customer != a.OwnCustomer() {
				t.Fatalf("at %s: open are %q, want %q; customer %q", now, s.Open, open, s.Customer)
			}
			for _, q := range requirements(t, rules) {
				want := ent.Decide(a, q, rules, now)
				got := s.Meets(q)
				switch {
				case (got != nil) != want.Allowed:
					t.Fatalf("at %s: %+v, Decide says %+v", now, got, want)
				case got == nil:
				case got.Decision != want:
					t.Fatalf("at %s: %+v, Decide says %+v", now, got.Decision, want)
				case want.Until.IsZero() != (got.UntilText == ""), got.UntilText != "" && got.UntilText != want.Until.UTC().Format(time.RFC3339):
					t.Fatalf("until %q, %s", got.UntilText, want.Until)
				}
			}
		}
	})
}

// requirements are any plan, each alone, and some of them.
func requirements(t *rapid.T, r *ent.Rules) []ent.Requirement {
	all := []ent.Requirement{{}}
	var some []string
	for i := range r.Plans {
		all = append(all, r.Only(i))
		if rapid.Bool().Draw(t, "plan") {
			some = append(some, r.Plans[i].Name)
		}
	}
	if q, err := r.Require(some...); err == nil && len(some) > 0 {
		all = append(all, q)
	}
	return all
}

// What is remembered does not outlive a boundary, and is not there before it.
func TestStandingEnds(t *testing.T) {
	r := rules()
	a := ent.NewAccount("ann", facts(sub("active")))
	first := a.Standing(r, start)
	if a.Standing(r, start.Add(time.Hour)) != first {
		t.Error("worked out again before it was over")
	}
	if d := first.Meets(ent.Requirement{}); d == nil || d.Reason != ent.ReasonActive || d.UntilText != end.UTC().Format(time.RFC3339) {
		t.Fatalf("%+v", d)
	}
	if d := a.Standing(r, end).Meets(ent.Requirement{}); d == nil || d.Reason != ent.ReasonRenewalGrace {
		t.Errorf("after the period: %+v", d)
	}
	if d := a.Standing(r, start).Meets(ent.Requirement{}); d == nil || d.Reason != ent.ReasonActive {
		t.Errorf("a clock that was set back: %+v", d)
	}
}

// What a benefit alone opens is looked at each minute, by the account and by a note of it.
func TestStandingOfABenefitIsShort(t *testing.T) {
	r := rules()
	s := ent.NewAccount("ann", facts(grant(ofSub("elsewhere")))).Standing(r, start)
	if d := s.Meets(ent.Requirement{}); d == nil || d.Reason != ent.ReasonBenefit || d.UntilText != "" {
		t.Fatalf("%+v", d)
	}
	note := s.AppendNote(nil)
	for after, want := range map[time.Duration]bool{0: true, time.Minute - 1: true, time.Minute: false} {
		if _, ok := ent.ReadNote(note, r, start.Add(after)); s.Holds(r, start.Add(after)) != want || ok != want {
			t.Errorf("after %v it holds: %v, as a note %v, want %v", after, s.Holds(r, start.Add(after)), ok, want)
		}
	}
}
