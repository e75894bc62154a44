package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/cache/kv/postgres/pgtest"
)

// sharedStore is the usual block with a store that several gateways share.
var sharedStore = strings.Replace(usual, "polar {", `polar {
		store postgres {
			dsn {env.DATABASE_URL}
		}`, 1)

// startDatabase runs a PostgreSQL server for one test.
func startDatabase(t *testing.T) *pgtest.Server {
	t.Helper()
	db, err := pgtest.Start()
	if errors.Is(err, pgtest.ErrNone) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Stop(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// network is what is between a gateway and its database, which can be cut.
type network struct {
	address string
	target  string
	mu      sync.Mutex
	isCut   bool
	conns   []net.Conn
}

func newNetwork(t *testing.T, target string) *network {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &network{address: l.Addr().String(), target: target}
	t.Cleanup(func() {
		_ = l.Close()
		n.cut()
	})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go n.carry(conn)
		}
	}()
	return n
}

// carry carries a connection's bytes; while the network is cut nothing, and nobody is told.
func (n *network) carry(conn net.Conn) {
	n.mu.Lock()
	n.conns = append(n.conns, conn)
	silent := n.isCut
	n.mu.Unlock()
	if silent {
		return
	}
	to, err := net.Dial("tcp", n.target)
	if err != nil {
		_ = conn.Close()
		return
	}
	copying := func(to, from net.Conn) {
		buf := make([]byte, 32<<10)
		for {
			k, err := from.Read(buf)
			n.mu.Lock()
			lost := n.isCut
			n.mu.Unlock()
			if lost { // neither the bytes nor the end get through
				return
			}
			if k > 0 {
				if _, err := to.Write(buf[:k]); err != nil {
					break
				}
			}
			if err != nil {
				break
			}
		}
		_, _ = to.Close(), from.Close()
	}
	go copying(to, conn)
	copying(conn, to)
}

// cut has all that goes through vanish.
func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.isCut = true
}

// heal ends that. What was under way is lost.
func (n *network) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.isCut = false
	for _, conn := range n.conns {
		_ = conn.Close()
	}
	n.conns = nil
}

// cluster is some gateways that share a store.
type cluster struct {
	db       *pgtest.Server
	gateways []*server
	networks []*network
	configs  []string
}

func startCluster(t *testing.T, size int) *cluster {
	t.Helper()
	c := &cluster{db: startDatabase(t)}
	for range size {
		c.add(t, newServer(t), c.db.Port)
	}
	return c
}

// add starts one more gateway, whose database is at a port.
func (c *cluster) add(t *testing.T, s *server, port string) {
	t.Helper()
	n := newNetwork(t, "127.0.0.1:"+port)
	s.env["DATABASE_URL"] = "postgres://postgres@" + n.address + "/postgres"
	config := s.caddyfile(sharedStore, s.paywall(t, "app"))
	c.gateways, c.networks, c.configs = append(c.gateways, s), append(c.networks, n), append(c.configs, config)
	s.start(t, config)
}

// post sends a webhook to a gateway, and says whether it was acknowledged.
func (c *cluster) post(s *server, body []byte) bool {
	r, err := s.try(http.MethodPost, "http://"+s.sites["app"]+webhookPath, signed(s.key, body))
	return err == nil && r.status == http.StatusOK
}

// sell tells the gateways of a purchase, and perhaps of its end: each webhook to any of
// them until one takes it, as Polar does, in any order, and some of them twice.
func (c *cluster) sell(t *testing.T, l *ledger, stop <-chan struct{}) {
	u := newSubscriber(productPro)
	events, then := [][]byte{u.active(t)}, paid
	if rand.IntN(3) == 0 {
		ends := wire(now.Add(-day))
		events = append(events, u.event(t, "subscription.revoked", object{"canceled_at": ends, "ends_at": ends, "ended_at": ends}))
		then = ended
	}
	if rand.IntN(2) == 0 {
		events = append(events, events[0])
	}
	rand.Shuffle(len(events), func(i, k int) { events[i], events[k] = events[k], events[i] })
	l.note(u.user, unknown)
	for _, body := range events {
		for !c.post(c.gateways[rand.IntN(len(c.gateways))], body) {
			select {
			case <-stop:
				return
			default:
				pause()
			}
		}
	}
	l.note(u.user, then)
}

// selling sells until the end.
func (c *cluster) selling(t *testing.T, l *ledger, senders int) (end func()) {
	return repeating(senders, func(stop <-chan struct{}) { c.sell(t, l, stop) })
}

// payer is somebody who has paid, and whom all gateways know.
func (c *cluster) payer(t *testing.T) string {
	t.Helper()
	u := newSubscriber(productPro)
	if !c.post(c.gateways[0], u.active(t)) {
		t.Fatal("the first webhook was not taken")
	}
	for _, s := range c.gateways {
		waitFor(t, "the payer", func() bool { return s.get(t, "app", "/pro/x", as(u.user)).status == http.StatusOK })
	}
	return u.user
}

// visiting has somebody who has paid visit each gateway until the end, who is never
// refused. Connections that break are not counted: a gateway can be killed.
func (c *cluster) visiting(t *testing.T, user string) (end func() int64) {
	stop := make(chan struct{})
	var all sync.WaitGroup
	var visits atomic.Int64
	for i, s := range c.gateways {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				r, err := s.try(http.MethodGet, "http://"+s.sites["app"]+"/pro/x", as(user))
				if err != nil {
					pause()
					continue
				}
				if visits.Add(1); r.status != http.StatusOK {
					t.Errorf("who has paid got at gateway %d: %v", i, r)
					return
				}
			}
		})
	}
	return func() int64 { close(stop); all.Wait(); return visits.Load() }
}

// agree waits until all gateways tell of all users what was acknowledged.
func (c *cluster) agree(t *testing.T, l *ledger) {
	t.Helper()
	l.mu.Lock()
	users := slices.Clone(l.users)
	l.mu.Unlock()
	for i, s := range c.gateways {
		for _, user := range users {
			var err error
			for until := time.Now().Add(5 * time.Second); ; pause() {
				if err = l.stands[user].check(s, user); err == nil || time.Now().After(until) {
					break
				}
			}
			if err != nil {
				t.Fatalf("gateway %d: %v", i, err)
			}
		}
	}
}

// TestSharedStore: webhooks come to three gateways in any order, some twice, while one is
// killed, the database goes away and comes back, and the network to it is cut for one.
// Nothing acknowledged is lost, who has paid is never refused, and in the end all agree.
func TestSharedStore(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	l := newLedger()
	payer := c.payer(t)
	leave := c.visiting(t, payer)
	end := c.selling(t, l, 6)
	defer end()
	more := func(what string) {
		t.Helper()
		before := l.acknowledged()
		waitFor(t, "webhooks "+what, func() bool { return l.acknowledged() > before+20 })
	}
	more("in peace")

	c.networks[1].cut()
	more("with one cut off")
	r, err := c.gateways[1].try(http.MethodPost, "http://"+c.gateways[1].sites["app"]+webhookPath, signed(c.gateways[1].key, newSubscriber(productPro).active(t)))
	if err != nil || r.status != http.StatusServiceUnavailable {
		t.Errorf("who is cut off answers a webhook %v, %v", r, err)
	}
	c.networks[1].heal()
	more("after that")

	c.db.Crash()
	c.gateways[0].load(t, strings.Replace(c.configs[0], "grace_period 2s", "grace_period 3s", 1)).wants(t, http.StatusOK)
	for _, s := range c.gateways {
		s.get(t, "app", "/pro/x", as(payer)).wants(t, http.StatusOK)
	}
	waitFor(t, "answers from memory to be counted", func() bool { // of who visits all the time
		return regexp.MustCompile(`caddy_polar_unconfirmed_total\{allowed="true",gateway="default"\} [1-9]`).MatchString(c.gateways[1].ask(t, http.MethodGet, "/metrics").body)
	})
	if err := c.db.Run(); err != nil {
		t.Fatal(err)
	}
	more("after the database was gone")

	if visits := leave(); visits < 100 {
		t.Errorf("only %d visits", visits)
	}
	c.gateways[2].kill()
	more("with one killed")
	c.gateways[2].start(t, c.configs[2])
	more("with it back")
	end()
	c.agree(t, l)
	t.Logf("%d users acknowledged, %d not", l.acknowledged(), l.size()-l.acknowledged())
}

// TestRollingReload: the gateways are reloaded one after the other, again and again, and
// no visit and no webhook fails.
func TestRollingReload(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	l := newLedger()
	payer := c.payer(t)
	leave := c.visiting(t, payer)
	end := c.selling(t, l, 3)
	defer end()
	for round := range often(3, 100) {
		for i, s := range c.gateways {
			config := strings.Replace(c.configs[i], "polar {", fmt.Sprintf("polar {\ngrace {\npast_due %dd\n}", 1+round%5), 1)
			s.load(t, config).wants(t, http.StatusOK)
		}
	}
	end()
	if visits := leave(); visits < 100 {
		t.Errorf("only %d visits", visits)
	}
	c.agree(t, l)
}

// TestDatabaseDownAtStart: a gateway starts without its database, says so, and is whole
// once that is there.
func TestDatabaseDownAtStart(t *testing.T) {
	t.Parallel()
	db := startDatabase(t)
	db.Crash()
	s := newServer(t)
	s.env["DATABASE_URL"] = db.DSN()
	s.start(t, s.caddyfile(sharedStore, s.paywall(t, "app")))
	u := newSubscriber(productPro)
	s.get(t, "app", "/free").wants(t, http.StatusOK)
	s.get(t, "app", "/pro/x", as(u.user)).problem(t, http.StatusServiceUnavailable, "unavailable")
	s.do(t, http.MethodPost, "app", webhookPath, signed(s.key, u.active(t))).wants(t, http.StatusServiceUnavailable)
	if !strings.Contains(s.logs(), "does not answer") || !strings.Contains(s.logs(), "127.0.0.1:"+db.Port) {
		t.Error("the log does not say it")
	}
	if err := db.Run(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the webhook to be taken", func() bool {
		return s.do(t, http.MethodPost, "app", webhookPath, signed(s.key, u.active(t))).status == http.StatusOK
	})
	s.get(t, "app", "/pro/x", as(u.user)).wants(t, http.StatusOK)
	waitFor(t, "the log", func() bool { return strings.Contains(s.logs(), "the store's database answers") })
}

// TestMigrate: a gateway's store moves from a file to a database and back under webhooks
// and visits. Nothing acknowledged is lost, who has paid is never refused, and what is
// only the gateway's comes along.
func TestMigrate(t *testing.T) {
	t.Parallel()
	db := startDatabase(t)
	s := newServer(t)
	s.env["DATABASE_URL"] = db.DSN()
	inFile := s.caddyfile(usual, s.paywall(t, "app"))
	inDatabase := s.caddyfile(sharedStore, s.paywall(t, "app"))
	s.start(t, inFile)
	c := &cluster{gateways: []*server{s}}
	l := newLedger()
	payer := c.payer(t)
	s.tells(t, "pass", "guest", "pro")
	s.get(t, "app", "/pro/x", as("guest")).wants(t, http.StatusOK)
	leave := c.visiting(t, payer)
	end := c.selling(t, l, 3)
	defer end()
	waitFor(t, "webhooks", func() bool { return l.acknowledged() > 20 })

	back := "--path=" + s.dir + "/back.db"
	out := s.tells(t, "migrate", "--from", "bolt", "--to", "postgres") // at {env.DATABASE_URL}
	if !strings.Contains(out, "subscriptions") || !strings.Contains(out, "reload") {
		t.Error(out)
	}
	if r, _ := s.try(http.MethodPost, "http://"+s.sites["app"]+webhookPath, signed(s.key, newSubscriber(productPro).active(t))); r == nil || r.status != http.StatusServiceUnavailable {
		t.Errorf("a store that was moved takes webhooks: %v", r)
	}
	if out := s.tells(t, "status"); !strings.Contains(out, "was moved to another place") {
		t.Error(out)
	}
	s.load(t, inDatabase).wants(t, http.StatusOK)
	mark := l.acknowledged()
	waitFor(t, "webhooks in the database", func() bool { return l.acknowledged() > mark+20 })
	s.get(t, "app", "/pro/x", as("guest")).wants(t, http.StatusOK)
	l.check(t, s, l.size())

	s.tells(t, "migrate", "--to", "bolt", back)
	s.load(t, strings.Replace(inFile, "polar {", "polar {\nstore bolt {\npath "+s.dir+"/back.db\n}", 1)).wants(t, http.StatusOK)
	mark = l.acknowledged()
	waitFor(t, "webhooks in the file", func() bool { return l.acknowledged() > mark+20 })
	end()
	if visits := leave(); visits < 100 {
		t.Errorf("only %d visits", visits)
	}
	l.check(t, s, l.size())
	s.get(t, "app", "/pro/x", as("guest")).wants(t, http.StatusOK)

	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"migrate"}, "give --to postgres"},
		{[]string{"migrate", "--from", "postgres", "--to", "bolt"}, "is bolt, not postgres"},
		{[]string{"migrate", "--to", "postgres", "--path", "x"}, "give --to postgres"},
		{[]string{"migrate", "--to", "postgres", "--dsn", "{env.NOTHING}"}, "placeholder"},
		{[]string{"migrate", "--to", "postgres", "--dsn", "postgres://ada:canary@127.0.0.1:1/x"}, "cannot be reached"},
		{[]string{"migrate", "--to", "bolt", back}, "it is the one"},
	} {
		_, said, err := s.polar(c.args...)
		if err == nil || !strings.Contains(said, c.says) || strings.Contains(said, "canary") {
			t.Errorf("%q: %s", c.args, said)
		}
	}

	// To where it came from, which was sealed a moment ago.
	s.tells(t, "migrate", "--to", "bolt") // the usual file
	s.load(t, inFile).wants(t, http.StatusOK)
	waitFor(t, "the first store to take webhooks", func() bool { return c.post(s, newSubscriber(productPro).active(t)) })
	l.check(t, s, l.size())
}
