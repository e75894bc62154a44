package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// lab is all that runs during a measurement.
type lab struct {
	o        *options
	dir      string
	held     map[string]net.Listener // by the name of a port
	procs    map[string]*exec.Cmd
	exited   map[string]chan struct{}
	absent   map[string]string // by server, why it is not there
	versions map[string]string
	client   string // the load generator

	secret  string // of HS256
	webhook string // the gateway's webhook secret
	keys    map[string]crypto.Signer
	tokens  map[string]string // by algorithm, of the first user
	many    []string          // one for each user
}

const (
	audience = "app"
	product  = "prod_bench"
)

func userID(i int) string { return fmt.Sprint("usr_", i) }

func newLab(dir string, o *options) (*lab, error) {
	l := &lab{
		o: o, dir: dir, held: map[string]net.Listener{}, procs: map[string]*exec.Cmd{}, exited: map[string]chan struct{}{},
		absent: map[string]string{}, versions: map[string]string{}, tokens: map[string]string{},
		secret: randomText(), webhook: randomText(),
	}
	if err := l.chooseClient(); err != nil {
		return nil, err
	}
	rsaKey, err1 := rsa.GenerateKey(rand.Reader, 2048)
	ecKey, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, edKey, err3 := ed25519.GenerateKey(rand.Reader)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	l.keys = map[string]crypto.Signer{"RS256": rsaKey, "ES256": ecKey, "EdDSA": edKey}
	var err error
	for _, alg := range algorithms {
		if l.tokens[alg], err = l.token(alg, 0); err != nil {
			return nil, err
		}
	}
	for i := range o.users {
		token, err := l.token("HS256", i)
		if err != nil {
			return nil, err
		}
		l.many = append(l.many, token)
	}
	return l, os.WriteFile(l.tokenFile(), []byte(strings.Join(l.many, "\n")+"\n"), 0o600)
}

func (l *lab) tokenFile() string { return filepath.Join(l.dir, "tokens") }

// randomText is a secret that is its own key: every peer takes it, some only
// text and some only base64.
func randomText() string {
	var b [32]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// token is the same for all rows of an algorithm. The role is for
// caddy-security, the verified e-mail for oauth2-proxy.
func (l *lab) token(alg string, i int) (string, error) {
	now := time.Now()
	t := jwt.NewWithClaims(jwt.GetSigningMethod(alg), jwt.MapClaims{
		"iss": l.Issuer(), "sub": userID(i), "aud": audience, "iat": now.Unix(), "exp": now.Add(24 * time.Hour).Unix(),
		"email": fmt.Sprintf("u%d@example.com", i), "email_verified": true, "roles": []string{"authp/user"},
		"sid": fmt.Sprintf("session-%016d", i),
	})
	if alg == "HS256" {
		return t.SignedString([]byte(l.secret))
	}
	return t.SignedString(l.keys[alg])
}

// Port is the port of a name, chosen when it is first asked for. It is kept
// from others until its server starts.
func (l *lab) Port(name string) int {
	if l.held[name] == nil {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err) // no loopback
		}
		l.held[name] = listener
	}
	return l.held[name].Addr().(*net.TCPAddr).Port
}

// portsOf are the names of a server's ports.
func (l *lab) portsOf(server string) []string {
	var names []string
	for name := range l.held {
		if name == server || strings.HasPrefix(name, server+"-") {
			names = append(names, name)
		}
	}
	return names
}

func (l *lab) addr(name string) string { return "127.0.0.1:" + strconv.Itoa(l.Port(name)) }

// What follows in capitals is for the configuration files.

func (l *lab) Issuer() string       { return "http://" + l.addr("auth") }
func (l *lab) Upstream() string     { return l.addr("upstream") }
func (l *lab) Auth() string         { return l.addr("auth") }
func (l *lab) Audience() string     { return audience }
func (l *lab) Product() string      { return product }
func (l *lab) Dir() string          { return l.dir }
func (l *lab) Algorithms() []string { return algorithms }
func (l *lab) Secret() string       { return l.secret }
func (l *lab) SecretBase64() string { return base64.StdEncoding.EncodeToString([]byte(l.secret)) }

// PublicKey is the key of an algorithm as PEM.
func (l *lab) PublicKey(alg string) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(l.keys[alg].Public())
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), err
}

// User is who nginx's workers are to be, so that they can read our files.
func (l *lab) User() string {
	if u, err := user.Current(); err == nil && u.Uid == "0" {
		return u.Username
	}
	return ""
}

//go:embed config
var configs embed.FS

// config writes a configuration file and says where it is.
func (l *lab) config(name string) (string, error) { return l.configOf(l, name, name) }

// configOf is the same, made for something else than the whole lab.
func (l *lab) configOf(what any, name, as string) (string, error) {
	t, err := template.ParseFS(configs, "config/"+name, "config/settings.caddyfile")
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, name, what); err != nil {
		return "", err
	}
	file := filepath.Join(l.dir, as)
	return file, os.WriteFile(file, b.Bytes(), 0o600)
}

// start starts the servers that the rows need.
func (l *lab) start(ctx context.Context, rows []*row) {
	needed := map[string]bool{"upstream": true, "auth": true}
	for _, r := range rows {
		needed[r.server] = true
		l.Port(r.site)
	}
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	caddy := func(server string) func() ([]string, error) {
		return func() ([]string, error) {
			file, err := l.config(server + ".caddyfile")
			return []string{l.bin(server), "run", "--adapter", "caddyfile", "--config", file}, err
		}
	}
	for _, s := range []struct {
		name    string
		command func() ([]string, error)
	}{
		{"upstream", func() ([]string, error) { return []string{self, "serve", "upstream", l.Upstream()}, nil }},
		{"auth", func() ([]string, error) {
			key, err := l.PublicKey("RS256")
			file := filepath.Join(l.dir, "rs256.pem")
			err = errors.Join(err, os.WriteFile(file, []byte(key), 0o600))
			return []string{self, "serve", "auth", l.Auth(), strconv.Itoa(l.o.users), file}, err
		}},
		{"plain", caddy("plain")},
		{"ours", func() ([]string, error) {
			for _, alg := range algorithms[1:] {
				key, err := l.PublicKey(alg)
				if err := errors.Join(err, os.WriteFile(filepath.Join(l.dir, alg+".pem"), []byte(key), 0o600)); err != nil {
					return nil, err
				}
			}
			return caddy("ours")()
		}},
		{"caddy-jwt", caddy("caddy-jwt")},
		{"caddy-security", caddy("caddy-security")},
		{"oauth2-proxy", func() ([]string, error) {
			return []string{
				l.bin("oauth2-proxy"), "--http-address=" + l.addr("oauth2-proxy-proxy"), "--upstream=http://" + l.Upstream() + "/",
				"--provider=oidc", "--oidc-issuer-url=" + l.Issuer(), "--client-id=" + audience, "--client-secret=" + randomText(),
				"--cookie-secret=" + randomText()[:32], "--skip-jwt-bearer-tokens=true", "--email-domain=*",
				"--request-logging=false", "--auth-logging=false", "--standard-logging=false",
			}, nil
		}},
		{"nginx", func() ([]string, error) {
			file, err := l.config("nginx.conf")
			return []string{l.bin("nginx"), "-p", l.dir, "-e", "stderr", "-c", file}, err
		}},
	} {
		if !needed[s.name] || l.absent[s.name] != "" {
			continue
		}
		command, err := s.command()
		if err == nil {
			err = l.spawn(ctx, s.name, command)
		}
		if err != nil {
			l.absent[s.name] = "void: does not start: " + err.Error()
			fmt.Printf("  %s: %s\n", s.name, l.absent[s.name])
		}
	}
	if needed["ours"] && l.absent["ours"] == "" {
		err := l.sell(ctx, "ours-webhooks", l.o.users)
		if err == nil {
			err = l.sell(ctx, "ours-webhooks-two", 1)
		}
		if err != nil {
			l.absent["ours"] = "void: the webhooks were not taken: " + err.Error()
		}
	}
}

// spawn starts a server and waits until it listens.
func (l *lab) spawn(ctx context.Context, name string, command []string) error {
	if err := l.begin(ctx, name, command); err != nil {
		return err
	}
	return l.until(ctx, name, 50*time.Millisecond, func() bool {
		return !slices.ContainsFunc(l.portsOf(name), func(port string) bool {
			conn, err := net.DialTimeout("tcp", l.addr(port), time.Second)
			if err == nil {
				_ = conn.Close()
			}
			return err != nil
		})
	})
}

// begin starts a server's process.
func (l *lab) begin(ctx context.Context, name string, command []string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = l.dir
	cmd.Env = append(environment(), "GOGC="+strconv.Itoa(l.o.gogc), "XDG_DATA_HOME="+l.dir+"/data", "XDG_CONFIG_HOME="+l.dir+"/config",
		"BENCH_JWT_SECRET="+l.secret, "BENCH_WEBHOOK_SECRET="+l.webhook)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	log, err := os.Create(filepath.Join(l.dir, name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	for _, port := range l.portsOf(name) {
		_ = l.held[port].Close()
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	l.procs[name], l.exited[name] = cmd, exited
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	return nil
}

// until waits until a server is ready, and looks so often.
func (l *lab) until(ctx context.Context, name string, every time.Duration, ready func() bool) error {
	for deadline := time.Now().Add(30 * time.Second); !ready(); {
		select {
		case <-l.exited[name]:
			return l.said(name, errors.New("it ended"))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(every):
		}
		if time.Now().After(deadline) {
			return l.said(name, errors.New("it does not listen"))
		}
	}
	return nil
}

// environment is ours without what would set the Go runtime of some servers
// otherwise than it is for all.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return slices.Contains([]string{"GOMAXPROCS", "GOMEMLIMIT", "GODEBUG", "GOGC"}, name)
	})
}

// said is an error with the end of a server's log.
func (l *lab) said(name string, err error) error {
	raw, _ := os.ReadFile(filepath.Join(l.dir, name+".log"))
	return fmt.Errorf("%w: %s", err, reason(string(raw), errors.New("without a word")))
}

// stop ends what was started, and waits for it.
func (l *lab) stop() {
	for _, cmd := range l.procs {
		_ = cmd.Process.Signal(syscall.SIGTERM)
	}
	for name := range l.procs {
		l.end(name)
	}
}

// end ends one server, and waits for it.
func (l *lab) end(name string) {
	cmd := l.procs[name]
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-l.exited[name]:
	case <-time.After(10 * time.Second):
		_ = cmd.Process.Kill()
		<-l.exited[name]
	}
	delete(l.procs, name)
}

// check asks once with the token and, where there is a gate, once without and
// once with a forged one: a row that lets everybody in measures nothing.
func (l *lab) check(ctx context.Context, r *row) error {
	forged := l.tokens[r.algorithm()]
	forged = forged[:len(forged)-10] + strings.Repeat("A", 10)
	for _, ask := range []struct {
		token string
		ok    bool
	}{{l.tokens[r.algorithm()], true}, {"", !r.gated}, {forged, !r.gated}} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url(r), nil)
		if err != nil {
			return err
		}
		if ask.token != "" {
			req.Header.Set("Authorization", "Bearer "+ask.token)
		}
		res, err := http.DefaultTransport.RoundTrip(req) // it follows no redirect
		if err != nil {
			return err
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil {
			return err
		}
		group, _, _ := strings.Cut(r.Name, "/")
		answered := res.StatusCode == http.StatusOK && len(body) == bodySize[group]
		if answered != ask.ok {
			return l.said(r.server, fmt.Errorf("asked with a token of %d bytes, it answers %d with %d bytes", len(ask.token), res.StatusCode, len(body)))
		}
	}
	return nil
}

// bodySize is that of the answer.
var bodySize = map[string]int{"proxy": 1024, "respond": len("ok")}

func (l *lab) url(r *row) string { return "http://" + l.addr(r.site) + "/" }

func (r *row) algorithm() string {
	if r.alg == "" {
		return "HS256"
	}
	return r.alg
}
