package gateway

import (
	"context"
	"time"
)

// Several gateways can share a store. What is to be done once, syncing and telling the
// app, is done by the one that has the store's lease; the others go by what it has done.

const (
	// leadEvery is how often it is looked whose the lease is.
	leadEvery = time.Second
	// hearEvery is how often the others look when the last sync was.
	hearEvery = 5 * time.Second
	// heardEvery is how often it is written that webhooks are still being heard, so that
	// one that starts knows that nothing was missed.
	heardEvery = 5 * time.Minute
)

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

// hearSyncs has a gateway that does not sync go by the syncs of the one that does.
func (g *Gateway) hearSyncs(ctx context.Context) {
	for g.sleep(ctx, hearEvery) == nil {
		if !g.store.Leads() {
			_ = g.recallSync() // who cannot read the store learns nothing of it either way
		}
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
