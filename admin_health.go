package caddypolar

import "net/http"

type liveView struct {
	Live bool `json:"live"`
}

// readyView says whether all gateways that were asked about are ready.
type readyView struct {
	Ready    bool           `json:"ready"`
	Gateways []gatewayReady `json:"gateways"`
}

type gatewayReady struct {
	Gateway string `json:"gateway"`
	Ready   bool   `json:"ready"`
	Reason  string `json:"reason"` // empty: it is ready, as below
	Error   string `json:"error"`
}

// adminLive answers: the process does.
func adminLive(c *adminCall) (any, error) {
	if c.query.Has("gateway") {
		return nil, badInput("gateway: leave it out, this is about the process")
	}
	return liveView{true}, nil
}

func adminReady(c *adminCall) (any, error) {
	app, err := c.app()
	if err != nil {
		return nil, adminError(http.StatusConflict, err)
	}
	names := sortedKeys(app.Gateways)
	if c.query.Has("gateway") {
		g, err := c.chosen()
		if err != nil {
			return nil, err
		}
		names = []string{g.name}
	}
	v := readyView{Ready: true, Gateways: []gatewayReady{}}
	for _, name := range names {
		r := app.Gateways[name].core.Ready(c.Context())
		ready := r.Reason == ""
		v.Ready = v.Ready && ready
		v.Gateways = append(v.Gateways, gatewayReady{name, ready, string(r.Reason), sentenceOf(r.Error)})
	}
	return v, nil
}

// answer implements adminAnswer: an orchestrator looks at the status alone.
func (v readyView) answer(w http.ResponseWriter) error {
	status := http.StatusOK
	if !v.Ready {
		status = http.StatusServiceUnavailable
	}
	return answerJSON(w, status, v)
}

// The routes of health, under a site's prefix.
const (
	routeLive  = "/health/live"
	routeReady = "/health/ready"

	healthMethods = "GET, HEAD, OPTIONS"
)

// serveHealth tells by the status alone how the gateway is: anybody can ask.
func (h *Handler) serveHealth(w http.ResponseWriter, r *http.Request, route string) {
	w.Header().Set("Cache-Control", noStore)
	switch {
	case r.Method == http.MethodOptions:
		w.Header().Set("Allow", healthMethods)
		w.WriteHeader(http.StatusNoContent)
	case !allows(healthMethods, r.Method):
		w.Header().Set("Allow", healthMethods)
		w.WriteHeader(http.StatusMethodNotAllowed)
	case route == routeReady && h.gateway.core.Ready(r.Context()).Reason != "":
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		w.WriteHeader(http.StatusOK)
	}
}
