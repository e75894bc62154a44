package caddypolar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/template"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/spf13/cobra"

	"github.com/caddy-polar/caddy-polar/demo"
)

// demoListen is where the demo's site is reached unless told otherwise.
const demoListen = "localhost:8402"

func demoCommand() *cobra.Command {
	var (
		listen      string
		printConfig bool
	)
	cmd := &cobra.Command{
		Use:   "demo [--listen <host:port>] [--print-config]",
		Short: "Shows the gateway at work: no account, no network, nothing is kept",
		Long: `
Starts a Polar in a box, a small app with a free page, a Pro page and a Team
API, and this gateway between them, all on this machine only. In the browser
you sign in as one of three people, are refused, buy, and are let in; a panel
moves the clock, fails payments, loses webhooks, and shows each decision with
its reason. Ctrl-C ends it and leaves nothing behind.`,
		Example: `  caddy polar demo
  caddy polar demo --listen localhost:9000
  caddy polar demo --print-config > Caddyfile`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			host, port, err := parseDemoListen(listen)
			if err != nil {
				return err
			}
			if printConfig {
				config, err := printedDemo(host, port)
				if err == nil {
					_, err = io.WriteString(cmd.OutOrStdout(), config)
				}
				return err
			}
			// SIGHUP is a terminal that is closed.
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			context.AfterFunc(ctx, stop) // a second Ctrl-C is for who cannot wait
			if err := runDemo(ctx, cmd.OutOrStdout(), host, port); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "\nThe demo is over. Nothing is left of it.")
			return err
		},
		DisableFlagsInUseLine: true,
	}
	cmd.Flags().StringVar(&listen, "listen", demoListen, "where to serve the app, on this machine")
	cmd.Flags().BoolVar(&printConfig, "print-config", false, "print the Caddyfile that you would write for the same, and exit")
	return cmd
}

// parseDemoListen wants an address of this machine: whoever reaches the demo
// can sign in as anybody.
func parseDemoListen(listen string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(listen)
	n, numberErr := strconv.ParseUint(port, 10, 16)
	if err != nil || numberErr != nil || !isLoopback(host) {
		return "", "", fmt.Errorf("--listen %s: it must be a host and a port on this machine, like %s", listen, demoListen)
	}
	return host, strconv.FormatUint(n, 10), nil
}

// claimPort finds out which addresses of a host can be listened on, and a port
// if it is 0. Caddy would share a port with another Caddy without a word; this
// does not.
func claimPort(host, wanted string) (addresses []string, port string, err error) {
	names := []string{host}
	if host == "localhost" {
		names = []string{"127.0.0.1", "::1"} // browsers try both
	}
	port = wanted
	for i, name := range names {
		l, err := net.Listen("tcp", net.JoinHostPort(name, port))
		switch {
		case errors.Is(err, syscall.EADDRINUSE) && wanted == "0":
			return claimPort(host, wanted) // free on the first address only
		case errors.Is(err, syscall.EADDRINUSE):
			return nil, "", fmt.Errorf("port %s on %s is taken by another program: end that, or choose another port, as in --listen %s",
				port, host, net.JoinHostPort(host, nextPort(port)))
		case err != nil && i > 0:
			continue // no IPv6 here
		case err != nil:
			return nil, "", fmt.Errorf("cannot listen on %s: %w: choose another address with --listen", net.JoinHostPort(host, port), err)
		}
		port = strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
		if err := l.Close(); err != nil {
			return nil, "", err
		}
		addresses = append(addresses, name)
	}
	return addresses, port, nil
}

func nextPort(port string) string {
	n, _ := strconv.Atoi(port)
	if n++; n > 65535 {
		n = 8403
	}
	return strconv.Itoa(n)
}

// runDemo runs the demo until the context ends.
func runDemo(ctx context.Context, out io.Writer, host, port string) (err error) {
	addresses, port, err := claimPort(host, port)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "caddy-polar-demo-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d, err := demo.Start("http://" + net.JoinHostPort(host, port))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	config, err := runningDemo(d, dir, addresses)
	if err != nil {
		return err
	}
	if err := loadCaddyfile(config); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, caddy.Stop()) }()
	app, err := loadApp(caddy.ActiveContext())
	if err != nil {
		return err
	}
	app.follow(d.Now)
	defer d.Watch()() // before Caddy stops, which would wait for it
	if _, err := fmt.Fprintf(out, demoWelcome, d.Site, d.Panel); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

const demoWelcome = `
A demo of the Polar entitlement gateway: no account, no network, no money.

  The app    %s
  The panel  %s

  1. Open the Pro page of the app: you are sent to sign in, and then refused.
  2. Buy it on the page that says so. You come back, and it is open.
  3. On the panel: move the clock, fail the next payment, lose webhooks, and
     see each webhook and each decision with its reason.

Ctrl-C ends it and leaves nothing behind.
`

// loadCaddyfile runs a Caddyfile.
func loadCaddyfile(config string) error {
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err
	}
	return caddy.Load(adapted, true)
}

// demoConfig is what differs between the configuration that runs and the one
// that is printed.
type demoConfig struct {
	Head                                          string
	Globals                                       string
	AccessToken, WebhookSecret, Server, JWTSecret string
	Pro, Team                                     string
	Store                                         string
	Site, Upstream                                string
}

var demoCaddyfile = template.Must(template.New("").Parse(`{{.Head}}{
{{.Globals}}	polar {
		access_token {{.AccessToken}}
		webhook_secret {{.WebhookSecret}}
		server {{.Server}}
		jwt {
			secret {{.JWTSecret}}
			from header Authorization
			from cookie session
		}
		plan pro {{.Pro}}
		plan team {{.Team}}
		login_url /login?return_to={return_to}
		page {
			name "Field Notes"
			color 1d6b52
		}
{{.Store}}	}
}

{{.Site}} {
	polar
	polar_require /pro/* pro
	polar_require /api/team/* team
	reverse_proxy {{.Upstream}}
}
`))

func (c *demoConfig) String() (string, error) {
	var b strings.Builder
	err := demoCaddyfile.Execute(&b, c)
	return b.String(), err
}

// printedDemo is the Caddyfile that a user would write.
func printedDemo(host, port string) (string, error) {
	c := demoConfig{
		Head: `# What "caddy polar demo" runs, as you would write it for your own app. Without
# "server sandbox" it is Polar's production.
`,
		AccessToken: "{env.POLAR_ACCESS_TOKEN}", WebhookSecret: "{env.POLAR_WEBHOOK_SECRET}", Server: "sandbox",
		JWTSecret: "{env.JWT_SECRET}", Pro: "{env.POLAR_PRO_PRODUCT} {env.POLAR_PRO_YEARLY_PRODUCT}", Team: "{env.POLAR_TEAM_PRODUCT}",
		Site: "http://" + net.JoinHostPort(host, port), Upstream: "localhost:3000",
	}
	return c.String()
}

// runningDemo is the Caddyfile that runs. Its secrets stand in files, as those
// of users do not stand in their Caddyfile either. Nothing of it writes to
// Caddy's own directories, which may be those of another Caddy.
func runningDemo(d *demo.Demo, dir string, addresses []string) (string, error) {
	c := demoConfig{
		Globals: fmt.Sprintf(`	admin off
	auto_https off
	persist_config off
	default_bind %s
	storage_clean_interval off
	servers {
		protocols h1
	}
	log {
		level WARN
		exclude admin http.auto_https
	}
`, strings.Join(addresses, " ")),
		Store:  fmt.Sprintf("\t\tstore bolt {\n\t\t\tpath %s\n\t\t}\n", quoted(filepath.Join(dir, "polar.db"))),
		Server: d.Polar, Pro: strings.Join(d.Products["pro"], " "), Team: strings.Join(d.Products["team"], " "),
		Site: d.Site, Upstream: d.Upstream,
	}
	for _, secret := range []struct {
		to    *string
		value string
	}{{&c.AccessToken, d.AccessToken}, {&c.WebhookSecret, d.WebhookSecret}, {&c.JWTSecret, d.JWTSecret}} {
		f, err := os.CreateTemp(dir, "secret-*") // only we can read it
		if err != nil {
			return "", err
		}
		_, err = f.WriteString(secret.value)
		if err := errors.Join(err, f.Close()); err != nil {
			return "", err
		}
		*secret.to = quoted("{file." + f.Name() + "}")
	}
	return c.String()
}

// quoted is a word of a Caddyfile, whatever is in it.
func quoted(s string) string { return "`" + s + "`" }
