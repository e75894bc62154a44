package gateway

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// Several gateways can share a store. What is to be done once, syncing and telling the
// app, is done by the one that has the store's lease; the others go by what it has done.

const (
	// leadEvery is how often it is looked whose the lease is.
	leadEvery = time.Second
	// hearEvery is how often the others look when the last sync was.
	hearEvery = 5 * time.Second
	// followLate is for how long nothing can be heard before that is said.
	followLate = time.Second
	// heardEvery is how often it is written that webhooks are still being heard, so that
	// one that starts knows that nothing was missed.
	heardEvery = 5 * time.Minute
)

// Sharing says whether the store is one that others use, too, whether this gateway does
// what is done once, and for how long it could not hear what the others write.
func (g *Gateway) Sharing() (shared, leads bool, behind time.Duration) {
	behind, _ = g.store.Behind()
	return g.store.Shared(), g.store.Leads(), behind
}

// leading does work for as long as this process has the lease, whenever it has it, until
// the context ends. A store that nobody shares needs none.
func (g *Gateway) leading(ctx context.Context, work func(context.Context)) {
	if !g.store.Shared() {
		work(ctx)
		return
	}
	for {
		for !g.store.Leads() {
			if g.sleep(ctx, leadEvery) != nil {
				return
			}
		}
		lead, end := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			work(lead)
		}()
		for g.store.Leads() && g.sleep(ctx, leadEvery) == nil {
		}
		end()
		<-ended
		if ctx.Err() != nil {
			return
		}
	}
}

// hearOthers has a gateway that does not sync go by the syncs of the one that does, and
// says so if the others cannot be heard, or the store cannot be written.
func (g *Gateway) hearOthers(ctx context.Context) {
	deaf, mute := false, false
	for g.sleep(ctx, hearEvery) == nil {
		behind, cause := g.store.Behind()
		switch heard := behind < followLate; {
		case !heard && !deaf:
			g.logger.Error("the store's database cannot be read: who is known goes on being decided for, and nobody else can be",
				zap.Duration("for", behind), zap.Error(cause))
		case heard && deaf:
			g.logger.Info("the store's database can be read again: what was missed is known now")
		}
		deaf = behind >= followLate
		if !deaf {
			unwritten := g.store.Unwritten()
			if unwritten != nil {
				unwritten = g.store.Check(ctx) // that may be long ago
			}
			if unwritten != nil && !mute {
				g.logger.Error("the store cannot be written: webhooks and whatever changes something get 503, and who has paid is let in", zap.Error(unwritten))
			}
			mute = unwritten != nil
		}
		g.shareBudget()
		switch {
		case !g.Syncs():
		case g.store.Leads():
			g.hearWish()
		default:
			g.passWish()
			_ = g.recallSync() // who cannot read the store learns nothing of it either way
		}
	}
}

// passWish tells who syncs that a sync is wanted here.
func (g *Gateway) passWish() {
	select {
	case <-g.sync.wanted:
		if g.Keep(noteWanted, []byte{1}) != nil {
			g.wantSync() // the next time
		}
	default:
	}
}

// hearWish wants a sync if another gateway does.
func (g *Gateway) hearWish() {
	if wish, err := g.store.Note(noteWanted); err == nil && wish != nil {
		g.wantSync()
		_ = g.Keep(noteWanted, nil) // else it is wanted once more
	}
}

// shareBudget divides what background work may ask of Polar among those who share the
// store: one half is for who syncs, the other half for all alike.
func (g *Gateway) shareBudget() {
	if g.limiter == nil {
		return
	}
	part := g.syncing.Budget / (2 * g.store.Sharers())
	if g.store.Leads() {
		part += g.syncing.Budget / 2
	}
	if part = max(part, 1); g.part.Swap(int64(part)) != int64(part) {
		g.limiter.SetBackground(part)
	}
}

// stillHears writes now and then that webhooks are still being heard.
func (g *Gateway) stillHears() {
	s := &g.sync
	s.mu.Lock()
	due := g.store.Shared() && !within(s.heard, g.local(), heardEvery)
	if due {
		s.heard = g.local()
	}
	s.mu.Unlock()
	if due {
		g.rememberSync()
	}
}
