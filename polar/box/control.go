package box

import (
	"encoding/json"
	"net/http"
	"time"
)

// Control is what moves a box from outside: its clock, its network, people's
// cards. It is no part of Polar.
//
//	GET  /now                                  the time on the box's clock
//	POST /advance {"by":"24h"}                 moves it, and does what is due
//	POST /network {"lose":true,"double":true}  what happens to webhooks
//	POST /trouble {"html":true,"limit":30}     what is wrong with the API
//	POST /card    {"customer":"…","pays":false}
//	GET  /attempts                             the deliveries so far
func (b *Box) Control() http.Handler {
	mux := http.NewServeMux()
	now := func(w http.ResponseWriter) { tell(w, http.StatusOK, map[string]any{"now": b.Now().UTC()}) }
	mux.HandleFunc("GET /now", func(w http.ResponseWriter, _ *http.Request) { now(w) })
	mux.HandleFunc("POST /advance", func(w http.ResponseWriter, r *http.Request) {
		in, ok := told[struct{ By string }](w, r)
		by, err := time.ParseDuration(in.By)
		switch {
		case !ok:
		case err != nil || by < 0:
			tell(w, http.StatusBadRequest, map[string]any{"error": "by must be a duration like 24h, forwards"})
		default:
			b.Advance(by)
			now(w)
		}
	})
	mux.HandleFunc("POST /network", func(w http.ResponseWriter, r *http.Request) {
		if in, ok := told[Network](w, r); ok {
			b.SetNetwork(in)
			now(w)
		}
	})
	mux.HandleFunc("POST /trouble", func(w http.ResponseWriter, r *http.Request) {
		if in, ok := told[Trouble](w, r); ok {
			b.SetTrouble(in)
			now(w)
		}
	})
	mux.HandleFunc("POST /card", func(w http.ResponseWriter, r *http.Request) {
		in, ok := told[struct {
			Customer string
			Pays     bool
		}](w, r)
		if !ok {
			return
		}
		if err := b.SetCard(in.Customer, in.Pays); err != nil {
			tell(w, http.StatusNotFound, map[string]any{"error": err.Error()})
			return
		}
		now(w)
	})
	mux.HandleFunc("GET /attempts", func(w http.ResponseWriter, _ *http.Request) {
		all := []map[string]any{}
		for _, a := range b.Attempts() {
			all = append(all, map[string]any{"at": a.CreatedAt, "type": a.EventType, "event": a.EventID, "code": a.Code, "succeeded": a.Succeeded})
		}
		tell(w, http.StatusOK, all)
	})
	// Other sites' pages must not drive a box on this machine.
	return http.NewCrossOriginProtection().Handler(mux)
}

func told[T any](w http.ResponseWriter, r *http.Request) (in T, ok bool) {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&in); err != nil {
		tell(w, http.StatusBadRequest, map[string]any{"error": err.Error()})
		return in, false
	}
	return in, true
}

func tell(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
