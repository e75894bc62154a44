package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-polar/caddy-polar/polar/box"
)

func TestProducts(t *testing.T) {
	for in, want := range map[string]box.Product{
		"Pro=1000/month":       {Name: "Pro", Interval: "month", Price: box.Price{Amount: 1000, Currency: "usd"}},
		"Life=9900":            {Name: "Life", Price: box.Price{Amount: 9900, Currency: "usd"}},
		"Trial=1000/year/14":   {Name: "Trial", Interval: "year", TrialInterval: "day", TrialCount: 14, Price: box.Price{Amount: 1000, Currency: "usd"}},
		"Free=0/week":          {Name: "Free", Interval: "week", Price: box.Price{Currency: "usd"}},
		"":                     {},
		"Pro":                  {},
		"=5":                   {},
		"Pro=x":                {},
		"Pro=-1":               {},
		"Pro=1/century":        {},
		"Pro=1/month/0":        {},
		"Pro=1/month/1/rabbit": {},
	} {
		var p products
		err := p.Set(in)
		if (err == nil) != (want.Name != "") {
			t.Errorf("%q: %v", in, err)
		}
		if err == nil && (p[0].Name != want.Name || p[0].Interval != want.Interval || p[0].Price.Amount != want.Price.Amount ||
			p[0].TrialInterval != want.TrialInterval || p[0].TrialCount != want.TrialCount) {
			t.Errorf("%q: %+v", in, p[0])
		}
	}
}

func TestListenElsewhere(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", "example.com:1", "nonsense", ":8403"} {
		if err := run(t.Context(), []string{"--listen", address}); err == nil || !strings.Contains(err.Error(), "--listen") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestCustomers(t *testing.T) {
	over, end := context.WithCancel(t.Context())
	end()
	if err := run(over, []string{"--listen", "127.0.0.1:0", "--customers", "3"}); err != nil {
		t.Error(err)
	}
	if err := run(over, []string{"--listen", "127.0.0.1:0", "--customers", "3", "--product", "Life=9900"}); err == nil {
		t.Error("a one-time product has been subscribed to")
	}
}

func TestServe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := box.New(box.Options{Realtime: true})
	token := b.NewToken()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, l, b) }()
	base := "http://" + l.Addr().String()
	ask := func(method, path, body string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text)
	}
	if status, text := ask("GET", "/v1/products/", ""); status != http.StatusOK {
		t.Error(status, text)
	}
	before := b.Now()
	if status, text := ask("POST", "/box/advance", `{"by":"48h"}`); status != http.StatusOK || b.Now().Sub(before) < 48*3600e9 {
		t.Error(status, text, b.Now())
	}
	for path, body := range map[string]string{
		"/box/advance": `{"by":"backwards"}`, "/box/network": `{"loose":true}`, "/box/trouble": `[]`, "/box/card": `{"customer":7}`,
	} {
		if status, text := ask("POST", path, body); status != http.StatusBadRequest {
			t.Error(path, status, text)
		}
	}
	if status, text := ask("POST", "/box/card", `{"customer":"nobody"}`); status != http.StatusNotFound {
		t.Error(status, text)
	}
	if status, text := ask("POST", "/box/network", `{"lose":true}`); status != http.StatusOK {
		t.Error(status, text)
	}
	if status, text := ask("POST", "/box/trouble", `{"html":true}`); status != http.StatusOK {
		t.Error(status, text)
	}
	if status, _ := ask("GET", "/v1/products/", ""); status != http.StatusInternalServerError {
		t.Error("no trouble", status)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
