package entitlement_test

import (
	"strings"
	"testing"
	"time"

	ent "github.com/caddy-polar/caddy-polar/entitlement"
	"pgregory.net/rapid"
)

// TestPropertyExplainAgrees: what is explained is what the gate decides, and
// each fact's own course is what follows from it alone.
func TestPropertyExplainAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, r := drawFacts(t), drawRules(t)
		a, q, now := account(f), drawRequirement(t, r), drawNow(t)
		e := ent.Explain(a, q, r, nil, now)
		if want := ent.Decide(a, q, r, now); e.Decision != want {
			t.Fatalf("explains %+v\ndecided %+v", e.Decision, want)
		}
		if got, want := len(e.Plans), len(r.Names(q)); got != want {
			t.Fatalf("%d plans, %d are demanded", got, want)
		}
		allowed := false
		for i, p := range e.Plans {
			if p.Plan != r.Names(q)[i] {
				t.Fatalf("plan %d is %s", i, p.Plan)
			}
			only, _ := r.Require(p.Plan)
			if p.Decision != ent.Decide(a, only, r, now) {
				t.Fatalf("%s: %+v", p.Plan, p.Decision)
			}
			checkFacts(t, &p)
			checkNext(t, &p, ent.Decide(a, only, r, p.Decision.Until))
			allowed = allowed || p.Decision.Allowed
		}
		if allowed != e.Decision.Allowed {
			t.Fatalf("the plans say %t, the whole %t", allowed, e.Decision.Allowed)
		}
	})
}

// checkFacts wants that the facts bear the decision out.
func checkFacts(t *rapid.T, p *ent.PlanExplanation) {
	open, decides := 0, 0
	for i := range p.Facts {
		f := &p.Facts[i]
		if f.Counts != (len(f.Course) > 0) || f.Decides && !f.Counts || f.String() == "" || f.ID == "" {
			t.Fatalf("%+v", f)
		}
		if !f.Counts {
			continue
		}
		if f.Course[0].Allowed {
			open++
		}
		if f.Decides {
			decides++
			s := f.Course[0]
			if s.Allowed != p.Decision.Allowed ||
				p.Decision.Reason != ent.ReasonPlanRequired && (s.Reason != p.Decision.Reason || !s.Until.Equal(p.Decision.Until)) {
				t.Fatalf("decides by %+v\n%+v", s, p.Decision)
			}
		}
		for n, s := range f.Course {
			ends, last := s.Allowed && !s.Until.IsZero(), n == len(f.Course)-1
			if ends == last {
				t.Fatalf("stage %d of %+v", n, f.Course)
			}
			if s.Boundary == "" && !s.Until.IsZero() {
				t.Fatalf("no name for the boundary of %+v of %+v", s, f)
			}
			if n > 0 && !f.Course[n-1].Until.Before(s.Until) && s.Allowed && !s.Until.IsZero() {
				t.Fatalf("no progress: %+v", f.Course)
			}
		}
	}
	if (open > 0) != p.Decision.Allowed || decides > 1 || p.Decision.Allowed && decides != 1 {
		t.Fatalf("%d open, %d decide: %+v", open, decides, p.Decision)
	}
}

func checkNext(t *rapid.T, p *ent.PlanExplanation, then ent.Decision) {
	ends := p.Decision.Allowed && !p.Decision.Until.IsZero()
	if ends != (p.Next != nil) || ends && (p.Next.Decision != then || !p.Next.At.Equal(p.Decision.Until)) {
		t.Fatalf("next %+v of %+v", p.Next, p.Decision)
	}
}

func TestExplainSentences(t *testing.T) {
	trial := func(s *ent.Subscription) { s.Status, s.TrialEnd = ent.StatusTrialing, start.Add(10*day) }
	pastDue := func(s *ent.Subscription) { s.Status, s.PastDueAt = ent.StatusPastDue, start.Add(day) }
	ends := func(s *ent.Subscription) { s.CancelAtPeriodEnd, s.EndsAt = true, end }
	ended := func(s *ent.Subscription) { s.Status, s.EndedAt = ent.StatusCanceled, start.Add(2*day) }
	say := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	noGrace := func(g *ent.Grace) { g.Renewal = 0 }
	for _, tt := range []struct {
		name  string
		facts ent.Facts
		rules *ent.Rules
		want  string
	}{
		{
			"active", facts(sub(ent.StatusActive)), rules(),
			"active until current_period_end " + say(end) + ", then renewal_grace until current_period_end + renewal 3d " +
				say(end.Add(3*day)) + ", then refused: period_ended",
		},
		{"without grace", facts(sub(ent.StatusActive)), rules(noGrace), "active until current_period_end " + say(end) + ", then refused: period_ended"},
		{
			"trial", facts(sub(ent.StatusTrialing, trial)), rules(),
			"trialing until trial_end " + say(start.Add(10*day)) + ", then renewal_grace until trial_end + renewal 3d " +
				say(start.Add(13*day)) + ", then refused: trial_ended",
		},
		{"past due", facts(sub(ent.StatusPastDue, pastDue)), rules(), "past_due_grace until past_due_at + past_due 7d " + say(start.Add(8*day)) + ", then refused: past_due"},
		{"canceling", facts(sub(ent.StatusActive, ends)), rules(), "canceling until ends_at " + say(end) + ", then refused: canceled"},
		{"ended", facts(sub(ent.StatusCanceled, ended)), rules(), "refused: canceled since ended_at " + say(start.Add(2*day))},
		{"pass", facts(pass(time.Time{})), rules(), "pass, without end"},
		{"seats", facts(sub(ent.StatusActive, func(s *ent.Subscription) { s.Seats = true })), rules(), "opens nothing by itself"},
	} {
		e := ent.Explain(account(tt.facts), require(t, tt.rules, "pro"), tt.rules, nil, start.Add(5*day))
		if got := e.Plans[0].Facts[0].String(); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

func TestExplainSources(t *testing.T) {
	marked := sub(ent.StatusActive, func(s *ent.Subscription) { s.MetadataUser = "ann" })
	child := grant(ofSub("sub"))
	for _, tt := range []struct {
		links []string
		sub   ent.Subscription
		want  ent.Source
	}{
		{nil, sub(ent.StatusActive), ent.SourceExternalID},
		{nil, marked, ent.SourceMetadata},
		{[]string{"cus"}, marked, ent.SourceLink},
		{[]string{"another"}, marked, ent.SourceMetadata},
	} {
		e := ent.Explain(account(facts(tt.sub, child, pass(time.Time{}))), ent.Requirement{}, rules(), tt.links, start)
		for _, f := range e.Plans[0].Facts {
			want := tt.want
			if f.Kind == ent.KindPass {
				want = ent.SourceOperator
			}
			if f.Source != want {
				t.Errorf("%s is the user's by %s, want %s", f.Kind, f.Source, want)
			}
		}
	}
}

// TestExplainOutside: what is bought and belongs to no plan is named, for it is
// the usual reason why somebody who has paid is refused.
func TestExplainOutside(t *testing.T) {
	f := facts(sub(ent.StatusActive, product(prodOther)), grant(benefit(benOther)))
	e := ent.Explain(account(f), ent.Requirement{}, rules(), nil, start)
	if len(e.Outside) != 2 || e.Outside[0].Item != prodOther || e.Outside[1].Item != benOther {
		t.Errorf("%+v", e.Outside)
	}
	only := require(t, rules(), "team")
	if e := ent.Explain(account(facts(sub(ent.StatusActive))), only, rules(), nil, start); len(e.Outside) != 0 {
		t.Errorf("what is of a plan that was not asked for: %+v", e.Outside)
	}
	if text := strings.Join([]string{e.Plans[0].Plan, e.Plans[1].Plan, e.Plans[2].Plan}, " "); text != "pro team extra" {
		t.Error(text)
	}
}
