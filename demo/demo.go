// Package demo is what `caddy polar demo` shows around the gateway: a Polar in
// a box, a small app that knows nothing of Polar, and a panel that moves the
// clock and shows what happens. It listens on loopback only, needs nothing and
// keeps nothing.
package demo

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/caddy-polar/caddy-polar/polar/box"
)

// routes is where the gateway serves its routes on its site.
const routes = "/auth/polar"

// Demo runs until it is closed. Its fields are what a gateway has to know.
type Demo struct {
	// Site is where visitors reach the app: the gateway's own address.
	Site string
	// Upstream is the app behind the gateway, as host:port.
	Upstream string
	// Polar is the base URL of the box, Panel the address of the panel.
	Polar, Panel string
	// AccessToken, WebhookSecret and JWTSecret are made anew for each demo.
	AccessToken, WebhookSecret, JWTSecret string
	// Products are ids of products by the name of the plan that they open.
	Products map[string][]string

	box     *box.Box
	journal *journal
	client  *http.Client // asks the gateway
	stop    context.CancelFunc
	running sync.WaitGroup
	servers []*http.Server
}

// Plans are the plans that the app sells, in their order.
var Plans = []string{"pro", "team"}

// Start starts everything but the gateway, which is to be reached at site.
func Start(site string) (*Demo, error) {
	u, err := url.Parse(site)
	if err != nil {
		return nil, err
	}
	// The box repeats its ids and secrets for a seed, so it needs a random one.
	var seed [8]byte
	rand.Read(seed[:])
	b := box.New(box.Options{Start: time.Now(), Realtime: true, Seed: binary.NativeEndian.Uint64(seed[:])})
	ctx, stop := context.WithCancel(context.Background())
	d := &Demo{
		Site: site, AccessToken: b.NewToken(), JWTSecret: randomSecret(), Products: stock(b),
		box: b, journal: newJournal(), client: &http.Client{Transport: &http.Transport{}}, stop: stop,
	}
	d.WebhookSecret = b.AddEndpoint(box.Endpoint{URL: site + routes + "/webhook"}).Secret
	if err := d.listen(ctx, u.Hostname()); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	b.SetBaseURL(d.Polar)
	d.running.Go(func() { b.Run(ctx) })
	d.running.Go(func() { d.followWebhooks(ctx) })
	return d, nil
}

// listen opens the two servers. Polar gets another host than the site, so that
// they are two sites for a browser, as in real life: otherwise cookies with
// SameSite=Strict would come along where they do not.
func (d *Demo) listen(ctx context.Context, siteHost string) error {
	app, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	d.Upstream = app.Addr().String()
	d.serve(ctx, app, d.app())
	polar, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	host := "127.0.0.1"
	if siteHost == host {
		host = "localhost"
	}
	d.Polar = fmt.Sprintf("http://%s:%d", host, polar.Addr().(*net.TCPAddr).Port)
	d.Panel = d.Polar + panelPath
	d.serve(ctx, polar, d.polar())
	return nil
}

func (d *Demo) serve(ctx context.Context, l net.Listener, h http.Handler) {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx }, // its end ends feeds
	}
	d.servers = append(d.servers, s)
	d.running.Go(func() { _ = s.Serve(l) })
}

// Now is the time on the box's clock, which the gateway has to follow.
func (d *Demo) Now() time.Time { return d.box.Now() }

// Close ends everything and waits until it has ended.
func (d *Demo) Close() error {
	d.stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var errs []error
	for _, s := range d.servers {
		err := s.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			err = s.Close() // a browser that does not hang up
		}
		errs = append(errs, err)
	}
	d.running.Wait()
	d.client.CloseIdleConnections()
	return errors.Join(errs...)
}

// stock fills the shop.
func stock(b *box.Box) map[string][]string {
	articles := b.AddBenefit(box.Benefit{Description: "Every article, and the archive"}).ID
	letter := b.AddBenefit(box.Benefit{Description: "The letter on Sundays"}).ID
	api := b.AddBenefit(box.Benefit{Description: "The API, for the whole team"}).ID
	product := func(name, about, interval string, amount int, benefits ...string) string {
		return b.AddProduct(box.Product{
			Name: name, Description: about, Interval: interval, Price: box.Price{Amount: amount}, BenefitIDs: benefits,
		}).ID
	}
	return map[string][]string{
		"pro": {
			product("Pro", "For readers who want it all.", "month", 1000, articles, letter),
			product("Pro, by the year", "The same, and two months for nothing.", "year", 10000, articles, letter),
		},
		"team": {product("Team", "For those who build on it.", "month", 3000, api)},
	}
}

func randomSecret() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
