package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// What is open for whom is written into a shared store, so that an app can ask its
// database for it. It follows the commits, within about a second.

const (
	// projectAtOnce is for how many users it is written at a time.
	projectAtOnce = 500
	// maxStages is how many stages of one plan are told: grace has one or two.
	maxStages = 8
)

// projected is how far that has come.
type projected struct {
	Rules  string       `json:"rules"` // by which it was decided: with others all is written anew
	Commit cache.Cursor `json:"commit"`
	// After is the user to go on after, while all are written; Done says that all were.
	After string `json:"after,omitempty"`
	Done  bool   `json:"done"`
}

// project writes it until the context ends.
func (g *Gateway) project(ctx context.Context) {
	var p *projected
	for {
		next, more, err := g.projectSome(ctx, p)
		switch {
		case err == nil:
			p = next
		case ctx.Err() == nil:
			p = nil // as the store has it
			if g.warnedProject.CompareAndSwap(false, true) {
				g.logger.Error("what is open for whom could not be written for the app's queries; it is tried again", zap.Error(err))
			}
		}
		if err == nil {
			g.warnedProject.Store(false)
		}
		if !more && g.sleep(ctx, leadEvery/2) != nil {
			return
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// projectSome goes on by one step. more says that there is more to do at once.
func (g *Gateway) projectSome(ctx context.Context, p *projected) (next *projected, more bool, err error) {
	if p == nil {
		raw, err := g.Note(cache.NoteStages)
		if err != nil {
			return nil, false, err
		}
		p = new(projected)
		if raw != nil && json.Unmarshal(raw, p) != nil {
			p = new(projected)
		}
	}
	rules := g.rulesName()
	var users []string
	var upTo cache.Cursor
	if p.Done || p.Rules != rules {
		var missed bool
		if users, upTo, missed, err = g.store.News(p.Commit); err != nil {
			return nil, false, err
		}
		if missed || p.Rules != rules {
			p = &projected{Rules: rules, Commit: upTo}
		}
	}
	step := *p
	of := make(map[string][]cache.Stage)
	if step.Done {
		if len(users) == 0 {
			step.Commit = upTo // not worth a commit of its own
			return &step, false, nil
		}
		for len(users) > 0 {
			some := users[:min(len(users), projectAtOnce)]
			users = users[len(some):]
			if len(users) == 0 {
				step.Commit = upTo
			}
			if err := g.projectUsers(ctx, some, &step); err != nil {
				return nil, false, err
			}
		}
		return &step, false, nil
	}
	err = g.store.EachAccount(ctx, step.After, func(a *entitlement.Account) error {
		of[a.User], step.After = g.stages(a), a.User
		if len(of) == projectAtOnce {
			return errEnough
		}
		return nil
	})
	if err != nil && err != errEnough {
		return nil, false, err
	}
	walked := cache.Users{After: p.After, UpTo: step.After}
	if step.Done = err == nil; step.Done {
		walked.UpTo = ""
	}
	if err := g.store.DropStages(ctx, walked, of); err != nil {
		return nil, false, err
	}
	return &step, true, g.writeStages(ctx, of, &step)
}

func (g *Gateway) projectUsers(ctx context.Context, users []string, step *projected) error {
	accounts, err := g.store.ReadAccounts(users)
	if err != nil {
		return err
	}
	of := make(map[string][]cache.Stage, len(users))
	for _, a := range accounts {
		of[a.User] = g.stages(a)
	}
	return g.writeStages(ctx, of, step)
}

func (g *Gateway) writeStages(ctx context.Context, of map[string][]cache.Stage, step *projected) error {
	raw, err := json.Marshal(step)
	if err != nil {
		return err
	}
	return g.store.SetStages(ctx, of, map[string][]byte{cache.NoteStages: raw})
}

// stages are when which plans are open for an account, from now on, if nothing changes.
func (g *Gateway) stages(a *entitlement.Account) (list []cache.Stage) {
	rules := g.Rules()
	for i := range rules.Plans {
		q, err := rules.Require(rules.Plans[i].Name)
		if err != nil {
			continue
		}
		at := g.Now()
		for n := 0; n < maxStages; n++ {
			d := entitlement.Decide(a, q, rules, at)
			if !d.Allowed {
				break
			}
			stage := cache.Stage{User: a.User, Plan: rules.Plans[i].Name, Reason: string(d.Reason), Until: d.Until}
			if n > 0 {
				stage.From = at
			}
			if list = append(list, stage); d.Until.IsZero() {
				break
			}
			at = d.Until
		}
	}
	return list
}

// rulesName stands for the plans and what decides about them, but for when Polar was
// asked last, which nothing that is open depends on.
func (g *Gateway) rulesName() string {
	rules := *g.Rules()
	rules.ConfirmedAt = time.Time{}
	sum := sha256.Sum256(fmt.Appendf(nil, "%+v", rules))
	return fmt.Sprintf("%x", sum[:8])
}
