package caddypolar

import (
	"context"
	"net/http"
)

// servePortal opens Polar's portal for a user: GET goes there, POST answers
// with its address.
func (g *Gateway) servePortal(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body struct {
		ReturnURL string `json:"returnUrl"`
	}
	body.ReturnURL = r.URL.Query().Get("return_to")
	if r.Method == http.MethodPost {
		if p := readBody(w, r, &body); p != nil {
			return p.answer(w, r, v)
		}
	}
	back, ok := g.returnAddress(r, body.ReturnURL)
	if !ok {
		return badReturn("returnUrl (return_to)").answer(w, r, v)
	}
	ctx, cancel := context.WithTimeout(r.Context(), providerTime)
	defer cancel()
	portal, err := g.core.OpenPortal(ctx, v.identity.Customer, back)
	switch {
	case err != nil:
		return g.providerProblem(r, v, err).answer(w, r, v)
	case r.Method == http.MethodGet:
		return redirect(w, r, string(portal))
	}
	return writeJSON(w, http.StatusOK, "application/json", map[string]string{"url": string(portal)})
}
