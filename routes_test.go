package caddypolar

import (
	"bytes"
	"io"
	"net/http"
	"runtime"
	"testing"
)

// TestLongBodiesKeepNobodyOut: strangers who send long bodies slowly take no
// place from webhooks, which are short.
func TestLongBodiesKeepNobodyOut(t *testing.T) {
	app, ctx := provisioned(t, "plan pro "+testProduct)
	g := app.Gateways["default"]
	h := new(Handler)
	if err := h.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	serve := func(body io.ReadCloser, webhook *http.Request) int {
		defer body.Close() // as the server does
		webhook.Body = body
		w := newRecorder()
		if err := h.ServeHTTP(w, prepared(webhook, w), handlerFunc(noop)); err != nil {
			t.Error(err)
		}
		return w.Code
	}
	const url = "http://localhost/auth/polar/webhook"
	forged := func() *http.Request {
		r := signed(t, url, nil)
		r.ContentLength = -1
		return r
	}

	var senders []*io.PipeWriter
	done := make(chan int, 8)
	for range 4 {
		body, sender := io.Pipe()
		senders = append(senders, sender)
		go func() { done <- serve(body, forged()) }()
		if _, err := sender.Write(make([]byte, maxWebhook-1)); err != nil {
			t.Fatal(err)
		}
	}
	for g.short.Load()+g.long.Load() < 4*(maxWebhook-1) {
		runtime.Gosched() // the last chunk is being counted
	}
	body, sender := io.Pipe()
	go func() { done <- serve(body, forged()) }()
	if _, err := io.Copy(sender, bytes.NewReader(make([]byte, maxWebhook-1))); err == nil {
		t.Error("a fifth long body was read to its end")
	}
	if status := <-done; status != http.StatusServiceUnavailable {
		t.Errorf("the fifth long body got %d", status)
	}
	event := activeNow(t)
	if status := serve(io.NopCloser(bytes.NewReader(event)), signed(t, url, event)); status != http.StatusOK {
		t.Errorf("a webhook got %d", status)
	}
	for _, sender := range senders {
		_ = sender.Close()
	}
	for range senders {
		if status := <-done; status != http.StatusBadRequest {
			t.Errorf("a forged webhook got %d", status)
		}
	}
	if g.long.Load() != 0 || g.short.Load() != 0 {
		t.Errorf("%d and %d bytes are still counted", g.long.Load(), g.short.Load())
	}
}
