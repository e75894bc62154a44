package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/caddy-polar/caddy-polar/polar/box"
)

const panelPath = "/panel/"

// What can happen to webhooks.
const (
	networkOn     = "arrive"
	networkLost   = "are lost"
	networkDouble = "arrive twice"
)

var networks = map[string]box.Network{
	networkOn:     {},
	networkLost:   {Lose: true},
	networkDouble: {Double: true},
}

// polar is the box's server, with the panel beside it. Only its own name is
// answered to: a page that has had its name point to this machine gets nothing.
func (d *Demo) polar() http.Handler {
	panel := http.NewServeMux()
	panel.HandleFunc("GET "+panelPath+"{$}", func(w http.ResponseWriter, _ *http.Request) { show(w, "panel.html", d.view()) })
	panel.HandleFunc("GET "+panelPath+"feed", d.feed)
	panel.HandleFunc("GET "+panelPath+"demo.css", serveFile("demo.css"))
	panel.HandleFunc("GET "+panelPath+"panel.js", serveFile("panel.js"))
	panel.HandleFunc("POST "+panelPath+"clock", d.action(d.moveClock))
	panel.HandleFunc("POST "+panelPath+"card", d.action(d.setCard))
	panel.HandleFunc("POST "+panelPath+"webhooks", d.action(d.setNetwork))

	mux := http.NewServeMux()
	mux.Handle("/", d.box)
	mux.Handle("GET /{$}", http.RedirectHandler(panelPath, http.StatusSeeOther))
	mux.Handle(panelPath, secured(http.NewCrossOriginProtection().Handler(panel)))
	u, _ := url.Parse(d.Polar)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != u.Host {
			http.Error(w, "This is reached at "+d.Polar+".", http.StatusMisdirectedRequest)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// action is a button of the panel: it does something and shows the panel again.
func (d *Demo) action(do func(*http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 1<<16)
		if err := do(r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		http.Redirect(w, r, panelPath, http.StatusSeeOther)
	}
}

func (d *Demo) did(title, text string) {
	d.journal.add(entry{At: d.box.Now(), Kind: "action", Good: true, Title: title, Text: text})
}

// moveClock moves the clock by a day, or to the end of a person's period and a
// minute on, in which the card is charged.
func (d *Demo) moveClock(r *http.Request) error {
	to := d.box.Now().AddDate(0, 0, 1)
	if r.PostFormValue("to") == "end" {
		p, ok := personByID(r.PostFormValue("person"))
		if !ok {
			return fmt.Errorf("there is nobody of that name")
		}
		s, ok := d.subscription(p)
		if !ok || !s.Billable() {
			d.did("The clock stays", p.Name+" has no subscription that runs.")
			return nil
		}
		to = s.CurrentPeriodEnd.Add(time.Minute)
	}
	d.did("The clock moves", "to "+to.UTC().Format(untilFormat))
	d.box.AdvanceTo(to)
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	d.refresh(ctx)
	return nil
}

// setCard lets a person's next payment fail, or changes to a good card, by
// which what is due is paid at once.
func (d *Demo) setCard(r *http.Request) error {
	p, ok := personByID(r.PostFormValue("person"))
	if !ok {
		return fmt.Errorf("there is nobody of that name")
	}
	c, ok := d.box.CustomerByExternalID(p.ID)
	switch {
	case !ok:
		d.did("No card", p.Name+" has not bought anything yet.")
		return nil
	case r.PostFormValue("card") == "good":
		d.did("A good card", p.Name+" pays with it from now on, and what is due.")
		return d.box.UpdateCard(c.ID, true)
	}
	d.did("A bad card", p.Name+"'s next payment will fail.")
	return d.box.SetCard(c.ID, false)
}

func (d *Demo) setNetwork(r *http.Request) error {
	mode := r.PostFormValue("mode")
	network, ok := networks[mode]
	if !ok {
		return fmt.Errorf("webhooks cannot do that")
	}
	d.box.SetNetwork(network)
	d.journal.change(func() {
		d.journal.network = mode
		d.journal.append(entry{At: d.box.Now(), Kind: "action", Good: true, Title: "Webhooks " + mode})
	})
	return nil
}

// subscription is a person's last one: only what has ended makes room for
// another.
func (d *Demo) subscription(p person) (s box.Subscription, ok bool) {
	c, ok := d.box.CustomerByExternalID(p.ID)
	if !ok {
		return s, false
	}
	all := d.box.Subscriptions(c.ID)
	if len(all) == 0 {
		return s, false
	}
	return all[len(all)-1], true
}

// panelView is all that the panel shows.
type panelView struct {
	Site     string
	Now      time.Time
	Network  string
	Networks []string
	People   []personView
	Entries  []entry // newest first
}

type personView struct {
	person
	Product string // as Polar knows it; empty without a subscription
	Status  string
	Ends    string // what happens at the end of the period, and when
	Plans   []planView
}

type planView struct {
	Name  string
	Known bool
	access
}

func (d *Demo) view() panelView {
	v := panelView{Site: d.Site, Now: d.box.Now(), Networks: []string{networkOn, networkLost, networkDouble}}
	for _, p := range people {
		v.People = append(v.People, d.viewPerson(p))
	}
	d.journal.mu.Lock()
	defer d.journal.mu.Unlock()
	v.Network = d.journal.network
	v.Entries = slices.Clone(d.journal.entries)
	slices.Reverse(v.Entries)
	// Webhooks are noticed a little later than what they cause.
	slices.SortStableFunc(v.Entries, func(a, b entry) int { return b.At.Compare(a.At) })
	for i := range v.People {
		p := &v.People[i]
		for _, plan := range Plans {
			a, known := d.journal.decisions[p.ID][plan]
			p.Plans = append(p.Plans, planView{plan, known, a})
		}
	}
	return v
}

func (d *Demo) viewPerson(p person) personView {
	v := personView{person: p}
	s, ok := d.subscription(p)
	if !ok {
		return v
	}
	for _, product := range d.box.Products() {
		if product.ID == s.ProductID {
			v.Product = product.Name
		}
	}
	v.Status = s.Status
	end := s.CurrentPeriodEnd.UTC().Format(untilFormat)
	switch {
	case !s.Billable():
	case s.CancelAtPeriodEnd:
		v.Ends = "ends " + end
	case s.PauseAtPeriodEnd:
		v.Ends = "pauses " + end
	default:
		v.Ends = "renews " + end
	}
	return v
}

// feed sends the parts of the panel that have changed, as they change: a JSON
// object of HTML by the element's id.
func (d *Demo) feed(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	ticker := time.NewTicker(time.Second) // for the clock
	defer ticker.Stop()
	for sent := make(map[string]string); ; {
		d.journal.mu.Lock()
		changed := d.journal.changed
		d.journal.mu.Unlock()
		news := make(map[string]string)
		for id, html := range parts(d.view()) {
			if sent[id] != html {
				sent[id], news[id] = html, html
			}
		}
		if len(news) > 0 {
			body, _ := json.Marshal(news)
			if _, err := fmt.Fprintf(w, "data: %s\n\n", body); err != nil || control.Flush() != nil {
				return
			}
		}
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		case <-ticker.C:
		}
	}
}

// parts renders what changes on the panel, by the element's id.
func parts(v panelView) map[string]string {
	render := func(name string, data any) string {
		var b bytes.Buffer
		if err := pages.ExecuteTemplate(&b, name, data); err != nil {
			panic("demo: " + err.Error()) // the templates are ours
		}
		return b.String()
	}
	html := map[string]string{"now": render("now", v), "log": render("log", v), "network": render("network", v)}
	for _, p := range v.People {
		html["person-"+p.ID] = render("person", p)
	}
	return html
}
