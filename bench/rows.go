package main

import (
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
)

// row is a line of the table: a site of a server, and the load on it.
type row struct {
	Name string // group/name
	Base string // the row that it is compared with, measured in the same round
	What string

	server string          // whose CPU counts as the gateway's
	site   string          // the name of its port
	alg    string          // of the token; HS256 by default
	many   bool            // as many tokens as there are users
	gated  bool            // refuses a request without a token
	fresh  func() []string // instead of many: new tokens in each run

	Absent string // why there is nothing to measure
}

var algorithms = []string{"HS256", "RS256", "ES256", "EdDSA"}

// allRows is what is compared. Each Caddy with a module in it has a site
// without a gate, so that the module's own cost is seen in one process.
func allRows() []*row {
	rows := []*row{{Name: "proxy/direct", Base: "proxy/plain", What: "no gateway: the upstream itself", server: "upstream", site: "upstream"}}
	for _, group := range []struct{ name, does string }{
		{"proxy", "reverse_proxy"},
		{"respond", `respond "ok"`},
	} {
		add := func(name, base, what, server string, change ...func(*row)) {
			r := &row{
				Name: group.name + "/" + name, Base: group.name + "/" + base, What: what,
				server: server, site: server + "-" + group.name, gated: true,
			}
			for _, c := range change {
				c(r)
			}
			rows = append(rows, r)
		}
		open := func(r *row) { r.gated = false; r.site += "-open" }
		many := func(r *row) { r.many = true }
		alg := func(a string) func(*row) { return func(r *row) { r.alg = a } }
		ownSite := func(suffix string) func(*row) { return func(r *row) { r.site += "-" + suffix } }

		add("plain", "plain", "Caddy with "+group.does, "plain", open)
		add("plain-aa", "plain", "the same once more, on another port: the noise", "plain", open, ownSite("aa"))
		add("plain-two-handlers", "plain", "the same with two of Caddy's own handlers before it, which set a variable and a header", "plain", open, ownSite("two"))
		add("ours-no-gate", "plain", "our Caddy, a site without the gate", "ours", open)
		for _, a := range algorithms {
			add("ours-"+a, "ours-no-gate", "polar and polar_require, known token and user", "ours", alg(a))
		}
		if group.name == "proxy" {
			add("plain-same-headers", "plain", "plain, with Caddy's request_header setting the seven headers that ours sets", "plain", open, ownSite("headers"))
			add("ours-two-headers", "ours-no-gate", "as ours-HS256, telling the app X-Polar-User and X-Polar-Plan only, as forward_auth below does", "ours", ownSite("two"))
			add("ours-no-gate-many", "ours-no-gate-many", "as ours-no-gate, a different token with each request", "ours", open, many)
			add("ours-HS256-many", "ours-no-gate-many", "as ours-HS256, each user with a token", "ours", many)
		}
		add("caddy-jwt-no-gate", "plain", "Caddy with caddy-jwt, a site without it", "caddy-jwt", open)
		for _, a := range algorithms {
			add("caddy-jwt-"+a, "caddy-jwt-no-gate", "jwtauth: the token alone, no entitlement", "caddy-jwt", alg(a), ownSite(a))
		}
		add("caddy-security-no-gate", "plain", "Caddy with caddy-security, a site without it", "caddy-security", open)
		add("caddy-security-HS256", "caddy-security-no-gate", "authorize: the token and a role in it", "caddy-security")
		add("forward_auth-HS256", "plain", "Caddy's forward_auth to a small Go authoriser", "plain")
		if group.name == "proxy" {
			add("nginx", "nginx", "nginx with proxy_pass", "nginx", open)
			add("nginx-auth_request-HS256", "nginx", "nginx's auth_request to the same authoriser", "nginx")
			add("oauth2-proxy-RS256", "plain", "oauth2-proxy with skip-jwt-bearer-tokens", "oauth2-proxy", alg("RS256"))
		}
	}
	return rows
}

// choose takes the rows that a list of patterns names, with their bases.
func choose(rows []*row, patterns string) ([]*row, error) {
	if patterns == "" {
		return rows, nil
	}
	wanted := map[string]bool{}
	for pattern := range strings.SplitSeq(patterns, ",") {
		found := false
		for _, r := range rows {
			if ok, err := path.Match(pattern, r.Name); err != nil {
				return nil, fmt.Errorf("-rows %s: %w", pattern, err)
			} else if ok {
				found = true
				group, _, _ := strings.Cut(r.Name, "/")
				for _, name := range []string{r.Name, r.Base, group + "/plain", group + "/plain-aa"} {
					wanted[name] = true
				}
			}
		}
		if !found {
			return nil, fmt.Errorf("-rows %s: there is no such row; -list shows all", pattern)
		}
	}
	return slices.DeleteFunc(rows, func(r *row) bool { return !wanted[r.Name] }), nil
}

// shuffled is another order in each round, the same on each machine.
func shuffled(rows []*row, round uint64) []*row {
	rows = slices.Clone(rows)
	rand.New(rand.NewPCG(round, 0)).Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	return rows
}
