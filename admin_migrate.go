package caddypolar

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-polar/caddy-polar/cache"
)

// movedView is what came of moving a store.
type movedView struct {
	From    string         `json:"from"`
	To      string         `json:"to"`
	Objects map[string]int `json:"objects"` // each of which was compared
	Sealed  moment         `json:"sealed"`  // until then the old one takes no changes
}

// adminMigrate moves the gateway's store to the one of a module, of which the body is the
// configuration, while the gateway runs. It can say from what kind of store.
func adminMigrate(c *adminCall) (any, error) {
	var body json.RawMessage
	var named struct {
		Module string `json:"module"`
	}
	if !c.read(&body) || json.Unmarshal(body, &named) != nil || named.Module == "" {
		return nil, badInput(`the body must be {"module": "bolt" or "postgres", …}, with what that store's configuration has`)
	}
	if from, is := c.query.Get("from"), caddy.GetModuleName(c.module.store); from != "" && from != is {
		return nil, badInput("the gateway's store is %s, not %s: it has been moved already, or another gateway is meant", is, from)
	}
	var words map[string]json.RawMessage
	_ = json.Unmarshal(body, &words) // it is an object
	delete(words, "module")
	raw, err := json.Marshal(words)
	if err != nil {
		return nil, err
	}
	running := caddy.ActiveContext()
	if running.Context == nil { // no Caddy runs here
		running.Context = c.Context()
	}
	ctx, cancel := caddy.NewContext(running)
	defer cancel()
	v, err := ctx.LoadModuleByID(storesNamespace+"."+named.Module, raw)
	if err != nil {
		return nil, badInput("store %s: %v", named.Module, err)
	}
	module, ok := v.(StoreModule)
	if !ok {
		return nil, badInput("store %s: it is no store", named.Module)
	}
	to, err := module.Open(c.module.usualFile(), storeUsed)
	if err != nil {
		return nil, badInput("store: %v", err)
	}
	defer func() { _ = module.Release() }()
	moved, err := c.gateway.MoveStore(c.Context(), to)
	switch {
	case errors.Is(err, cache.ErrOccupied), errors.Is(err, cache.ErrSealed):
		return nil, adminError(http.StatusConflict, err)
	case err != nil:
		return nil, err
	}
	return movedView{From: moved.From, To: to.Path(), Objects: moved.Objects, Sealed: at(moved.Sealed)}, nil
}

// storesNamespace is that of store modules.
const storesNamespace = "polar.stores"

// left is how long the operator has to reload.
func (v *movedView) left() time.Duration {
	return time.Until(v.Sealed.Time).Round(time.Second)
}
