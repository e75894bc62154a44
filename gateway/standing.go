package gateway

import (
	"crypto/sha256"
	"encoding/json"
	"time"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// Most requests are of people for whom something is open, and for these their
// standing is all that matters: it is remembered, a pointer away from the token and
// as a few bytes for each user. Whole accounts are for who is refused, or changes
// something.

// Standing is what a visitor comes to, as AccountOf has it, with what that rests on.
// Nobody changes it.
type Standing struct {
	*entitlement.Standing
	user, person cache.Revision        // as long as these hold
	alone        *entitlement.Standing // and this, if the person's own account counts
	shared       bool                  // the person's does
}

// Holds says whether the visitor it was made for still comes to that.
func (s *Standing) Holds(r *entitlement.Rules, now time.Time) bool {
	return s.user.Holds() && (!s.shared || s.person.Holds()) &&
		s.Standing.Holds(r, now) && (s.alone == nil || s.alone.Holds(r, now))
}

// StandingOf is the standing of somebody whose token was verified. The account comes
// with it if it had to be read, else it is nil. An error means that the store cannot
// be read, which says nothing about them.
func (g *Gateway) StandingOf(v *Visitor, now time.Time) (*Standing, *entitlement.Account, error) {
	rules := g.Rules()
	if s := g.recallStanding(v, rules, now); s != nil {
		return s, nil, nil
	}
	s := &Standing{shared: !v.self(), user: g.store.Revision(v.User), person: g.store.Revision(v.Person)}
	account, err := g.AccountOf(*v)
	if err != nil {
		return nil, nil, err
	}
	s.Standing = account.Standing(rules, now)
	settled, err := g.settle(s, v, account, rules, now)
	if err != nil {
		return nil, nil, err
	}
	if !settled {
		s.user = cache.Revision{} // it holds for this request
	}
	return s, account, nil
}

// settle remembers a standing for the user, and says whether it is the same for the
// same visitor until a fact changes: an e-mail can link more at any time, as long as
// AccountOf looks for it.
func (g *Gateway) settle(s *Standing, v *Visitor, account *entitlement.Account, rules *entitlement.Rules, now time.Time) (settled bool, err error) {
	if s.shared {
		alone := v.alone()
		if !g.proves(&alone) {
			return true, nil
		}
		person, err := g.Account(v.Person)
		if err != nil {
			return false, err
		}
		s.alone = person.Standing(rules, now)
		return len(person.Members) > 0 && s.alone.Open != "", nil
	}
	somebody := isSomebody(account)
	if s.Open != "" { // else there is little to remember, and strangers are many
		note := append(make([]byte, 0, 128), g.plansDigest[:]...)
		note = append(note, btoi(somebody))
		g.store.Remember(v.User, s.user, s.AppendNote(note))
	}
	return !g.proves(v) || somebody && s.Open != "", nil
}

// recallStanding finds the standing of somebody who asks for themselves.
func (g *Gateway) recallStanding(v *Visitor, rules *entitlement.Rules, now time.Time) *Standing {
	if !v.self() || v.User == "" {
		return nil
	}
	if _, err := g.claim(); err != nil {
		return nil // it may be another's store
	}
	var room [256]byte
	note, revision, ok := g.store.Recall(room[:0], v.User)
	n := len(g.plansDigest)
	if !ok || len(note) <= n || [len(g.plansDigest)]byte(note[:n]) != g.plansDigest {
		return nil
	}
	if note[n] == 0 && g.proves(v) {
		return nil // the e-mail may make them a customer
	}
	s, ok := entitlement.ReadNote(note[n+1:], rules, now)
	if !ok {
		return nil
	}
	return &Standing{Standing: s, user: revision}
}

// digestPlans tells notes of these plans from those of an earlier configuration.
func digestPlans(plans []entitlement.Plan) (d [8]byte) {
	raw, _ := json.Marshal(plans) // nothing in them can fail
	sum := sha256.Sum256(raw)
	return [8]byte(sum[:])
}

func btoi(b bool) byte {
	if b {
		return 1
	}
	return 0
}
