package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// turnstile stands before a Polar: it notes the pages that a sync reads, and
// can keep one of them back for as long as its reader lives.
type turnstile struct {
	polar http.Handler

	mu      sync.Mutex
	list    string // keeps back the page of this list
	page    int    // that is so many since the last start
	pages   []page // since then
	waiting chan struct{}
}

// page is a page of a list that a sync has asked for.
type page struct{ list, request string }

func (g *turnstile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g.keepsBack(r) {
		<-r.Context().Done()
		return
	}
	g.polar.ServeHTTP(w, r)
}

// keepsBack notes a page and says whether it is the one to be kept back.
func (g *turnstile) keepsBack(r *http.Request) bool {
	q := r.URL.Query()
	list := strings.Trim(strings.TrimPrefix(r.URL.Path, "/v1/"), "/")
	if sorting := q.Get("sorting"); q.Get("limit") != "100" || sorting != "created_at" && sorting != "started_at" {
		return false // no page of a sync, or as well one of a glance
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pages = append(g.pages, page{list, r.URL.RequestURI()})
	if list != g.list {
		return false
	}
	if g.page--; g.page != 0 {
		return false
	}
	close(g.waiting)
	return true
}

// keep keeps back the page of a list, counted from now. The pages that were
// read before are told, and that one comes last among them.
func (g *turnstile) keep(list string, n int) (read []page, waiting <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	read, g.pages = g.pages, nil
	g.list, g.page, g.waiting = list, n, make(chan struct{})
	return read, g.waiting
}

// lists are the lists that pages are of, in turn.
func lists(pages []page) string {
	var all []string
	for _, p := range pages {
		if len(all) == 0 || all[len(all)-1] != p.list {
			all = append(all, p.list)
		}
	}
	return strings.Join(all, ", ")
}

// The first sync is killed in its middle, and what follows on it too. It goes
// on where it was, reads all once more for what has happened meanwhile, and in
// the end whoever has paid gets in and nobody else.
func TestCrashesInTheFirstSync(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	const payers = 650
	if err := s.box.Populate(payers, s.pro.ID); err != nil {
		t.Fatal(err)
	}
	to, err := url.Parse(s.box.URL)
	if err != nil {
		t.Fatal(err)
	}
	gate := &turnstile{polar: httputil.NewSingleHostReverseProxy(to)}
	front := httptest.NewServer(gate)
	t.Cleanup(func() {
		s.kill() // or it would wait for ever
		front.Close()
	})
	s.env["POLAR_SERVER"] = front.URL
	config := s.caddyfile(strings.Replace(selling, "sync off", "sync {\n\t\t\tbudget 500/m\n\t\t}", 1), s.paywall(t, "app"))
	crashesAt := func(list string, n int) {
		t.Helper()
		_, waiting := gate.keep(list, n)
		s.start(t, config)
		waitFor(t, fmt.Sprintf("page %d of the %s", n, list), func() bool {
			select {
			case <-waiting:
				return true
			default:
				return false
			}
		})
		s.kill()
	}
	const (
		resumed = "the first sync goes on where it was interrupted"
		done    = "the first sync is done"
	)
	said := func(line string) int { return strings.Count(s.logs(), line) }

	crashesAt("subscriptions", 4)
	first, _ := gate.keep("", 0)
	if got := lists(first); got != "customers, subscriptions" || len(first) != 7+4 || said(resumed) != 0 {
		t.Errorf("the first sync has read %d pages: %s", len(first), got)
	}

	// It goes on with the page that it did not get, and then begins anew.
	crashesAt("customers", 3)
	second, _ := gate.keep("", 0)
	if got := lists(second); got != "subscriptions, orders, refunds, disputes, customers" || said(resumed) != 1 {
		t.Errorf("the resumed sync has read: %s", got)
	}
	if second[0] != first[len(first)-1] {
		t.Errorf("it goes on with %v, and was at %v", second[0], first[len(first)-1])
	}
	begun := slices.IndexFunc(second, func(p page) bool { return p.list == "customers" })
	for _, p := range first[:len(first)-1] {
		if slices.Contains(second[:begun], p) {
			t.Errorf("%v is read once more", p)
		}
	}
	if said(done) != 0 {
		t.Error("what a resumed sync has read counts as a whole one")
	}

	s.start(t, config)
	waitFor(t, "the first sync", func() bool { return said(done) > 0 })
	third, _ := gate.keep("", 0)
	if third[0] != second[len(second)-1] || said(resumed) != 2 {
		t.Errorf("it goes on with %v, and was at %v", third[0], second[len(second)-1])
	}
	whole := "customers, subscriptions, orders, refunds, disputes"
	if got := lists(third); got != whole+", "+whole {
		t.Errorf("in the end it has read: %s", got)
	}
	for i := range payers {
		s.get(t, "app", "/pro/", as(fmt.Sprint("usr_", i))).wants(t, http.StatusOK)
	}
	s.get(t, "app", "/pro/", as("nobody")).problem(t, http.StatusPaymentRequired, "no_subscription")
	s.get(t, "app", "/pro/", as(fmt.Sprint("usr_", payers))).problem(t, http.StatusPaymentRequired, "no_subscription")
}
