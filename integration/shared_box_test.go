package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-polar/caddy-polar/cache/kv/postgres/pgtest"
	"github.com/caddy-polar/caddy-polar/polar/box"
	"github.com/caddy-polar/caddy-polar/polar/box/boxtest"
)

// postman takes Polar's webhooks and brings each to any gateway, again until one has taken
// it, at the same time as others and so in any order, and now and then twice.
type postman struct {
	c       *cluster
	given   sync.WaitGroup
	brought atomic.Int64
	end     atomic.Bool
}

func (p *postman) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for range 1 + rand.IntN(2) {
		p.given.Go(func() { p.bring(r.Header.Clone(), body) })
	}
}

func (p *postman) bring(header http.Header, body []byte) {
	time.Sleep(rand.N(20 * time.Millisecond)) // the way takes its time
	for !p.end.Load() {
		s := p.c.gateways[rand.IntN(len(p.c.gateways))]
		r, err := s.try(http.MethodPost, "http://"+s.sites["app"]+webhookPath, func(r *http.Request) {
			r.Header, r.Body = header, io.NopCloser(bytes.NewReader(body))
			r.ContentLength = int64(len(body))
		})
		if err == nil && r.status == http.StatusOK {
			p.brought.Add(1)
			return
		}
		pause()
	}
}

// customers are some people who buy, change and end what they have, at random.
type customers struct {
	box        *boxtest.Server
	pro, other box.Product
	users      []string
}

// subscription is the last one of a user.
func (c *customers) subscription(user string) (box.Subscription, bool) {
	known, ok := c.box.CustomerByExternalID(user)
	if !ok {
		return box.Subscription{}, false
	}
	all := c.box.Subscriptions(known.ID)
	if len(all) == 0 {
		return box.Subscription{}, false
	}
	return slices.MaxFunc(all, func(a, b box.Subscription) int { return a.CreatedAt.Compare(b.CreatedAt) }), true
}

// paid is Polar's truth.
func (c *customers) paid(user string) bool {
	s, ok := c.subscription(user)
	return ok && s.Active() && s.ProductID == c.pro.ID
}

// act has somebody do something.
func (c *customers) act(t *testing.T) {
	t.Helper()
	user := c.users[rand.IntN(len(c.users))]
	s, ok := c.subscription(user)
	var err error
	switch n := rand.IntN(3); {
	case !ok || !s.Active():
		_, err = c.box.Buy(user, user+"@example.com", c.pro.ID)
	case n == 0:
		_, err = c.box.Revoke(s.ID)
	case s.CancelAtPeriodEnd:
		_, err = c.box.Uncancel(s.ID)
	case n == 1:
		_, err = c.box.Cancel(s.ID, "", "")
	case s.ProductID == c.pro.ID:
		_, err = c.box.ChangePlan(s.ID, c.other.ID, "invoice")
	default:
		_, err = c.box.ChangePlan(s.ID, c.pro.ID, "invoice")
	}
	if err != nil {
		t.Fatal(err)
	}
	c.box.Settle()
}

// TestSharedStoreIsPolarsTruth: people buy, change and end what they have at Polar, whose
// webhooks come to three gateways in any order, some twice, one gateway behind a pooler;
// one is killed, one is cut off, the database crashes. In the end all gateways, and the
// view that an app asks, tell what Polar does. Nobody could look it up there.
func TestSharedStoreIsPolarsTruth(t *testing.T) {
	t.Parallel()
	polar := boxtest.Start(t, box.Options{Start: time.Now().Add(-10 * day), SigningClock: time.Now})
	product := func(name string) box.Product {
		return polar.AddProduct(box.Product{Name: name, Interval: "month", Price: box.Price{Amount: 1000, Currency: "usd"}})
	}
	people := &customers{box: polar, pro: product("Pro"), other: product("Other")}
	for n := range 40 {
		people.users = append(people.users, fmt.Sprintf("user-%02d", n))
	}
	c := &cluster{db: startDatabase(t)}
	pooler, err := c.db.Bounce()
	if errors.Is(err, pgtest.ErrNoBouncer) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := pooler.Stop(); err != nil {
			t.Error(err)
		}
	}()
	for _, port := range []string{c.db.Port, pooler.Port, c.db.Port} {
		s := newServer(t)
		s.env["PRODUCT_PRO"] = people.pro.ID
		c.add(t, s, port)
	}
	p := &postman{c: c}
	mailbox := httptest.NewServer(p)
	defer mailbox.Close()
	defer p.given.Wait()
	defer p.end.Store(true)
	polar.AddEndpoint(box.Endpoint{URL: mailbox.URL, Secret: webhookSecret, Enabled: true})

	const payer = "payer"
	if _, err := polar.Buy(payer, payer+"@example.com", people.pro.ID); err != nil {
		t.Fatal(err)
	}
	polar.Settle()
	for _, s := range c.gateways {
		waitFor(t, "the payer", func() bool { return s.get(t, "app", "/pro/x", as(payer)).status == http.StatusOK })
	}
	leave := c.visiting(t, payer)
	live := func(what string) {
		t.Helper()
		before := p.brought.Load()
		for until := time.Now().Add(patience); p.brought.Load() < before+150; people.act(t) {
			if time.Now().After(until) {
				t.Fatalf("webhooks do not arrive %s", what)
			}
		}
	}
	live("in peace")
	c.networks[1].cut()
	live("with one cut off")
	c.networks[1].heal()
	live("after that")
	c.db.Crash()
	people.act(t)
	if err := c.db.Run(); err != nil {
		t.Fatal(err)
	}
	live("after the database was gone")
	if visits := leave(); visits < 100 {
		t.Errorf("only %d visits", visits)
	}
	c.gateways[2].kill()
	live("with one killed")
	c.gateways[2].start(t, c.configs[2])
	live("with it back")
	p.given.Wait()

	var paid []string
	for _, user := range people.users {
		want := http.StatusPaymentRequired
		if people.paid(user) {
			want, paid = http.StatusOK, append(paid, user)
		}
		for i, s := range c.gateways {
			waitFor(t, fmt.Sprintf("gateway %d to answer %s with %d", i, user, want), func() bool {
				return s.get(t, "app", "/pro/x", as(user)).status == want
			})
		}
	}
	paid = append(paid, payer)
	slices.Sort(paid)
	conn, err := pgx.Connect(t.Context(), c.db.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	waitFor(t, "the view to tell who has paid", func() bool {
		rows, err := conn.Query(t.Context(), "SELECT user_id FROM polar.entitlements WHERE plan = 'pro' ORDER BY user_id COLLATE \"C\"")
		if err != nil {
			t.Fatal(err)
		}
		told, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return slices.Equal(told, paid)
	})
	waitFor(t, "one of them to lead, and all to hear", func() bool {
		leaders, hear := 0, 0
		for _, s := range c.gateways {
			metrics := string(s.ask(t, http.MethodGet, "/metrics").body)
			leaders += strings.Count(metrics, `caddy_polar_store_leads{gateway="default"} 1`)
			hear += strings.Count(metrics, `caddy_polar_store_behind_seconds{gateway="default"} 0`+"\n")
		}
		return leaders == 1 && hear == len(c.gateways)
	})
	t.Logf("%d webhooks, %d of %d have paid", p.brought.Load(), len(paid), len(people.users)+1)
}
