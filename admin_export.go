package caddypolar

import "github.com/caddy-polar/caddy-polar/gateway"

// What a page of the export has: all that is held about one user can be some kB.
const (
	exportByDefault = 100
	exportAtMost    = 500
)

type exportView struct {
	Users []holdingView `json:"users"`
	// Next is the value of after for those that follow, null at the end.
	Next *string `json:"next"`
}

func adminExport(c *adminCall) (any, error) {
	limit, err := c.limit(exportByDefault, exportAtMost)
	if err != nil {
		return nil, err
	}
	list, more, err := c.gateway.Export(c.Context(), c.query.Get("after"), limit)
	if err != nil {
		return nil, err
	}
	v := exportView{Users: mapped(list, func(h *gateway.Holding) holdingView { return viewHolding(*h) })}
	if more {
		v.Next = &list[len(list)-1].User
	}
	return v, nil
}
