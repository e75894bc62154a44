package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// How often we look at the box, and how long we wait for a gateway that hangs
// up, before we call again.
const (
	lookEvery = 50 * time.Millisecond
	callAgain = 500 * time.Millisecond
)

// followWebhooks notes each attempt to deliver a webhook.
func (d *Demo) followWebhooks(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for seen := 0; ; {
		attempts := d.box.Attempts()
		for _, a := range attempts[seen:] {
			e := entry{At: a.CreatedAt, Kind: "webhook", Good: a.Succeeded, Title: a.EventType, Text: fmt.Sprint(a.Code)}
			switch {
			case a.Succeeded && a.Response == "":
				// Polar believes that it arrived; a gateway would have said so.
				e.Good, e.Text = false, "lost on its way"
			case a.Code == 0:
				e.Text = "no answer: " + a.Response
			case !a.Succeeded:
				e.Text += " " + a.Response
			}
			d.journal.add(e)
		}
		seen = len(attempts)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Watch begins to follow what the gateway decides for each person, which has to
// listen by now. The function that it returns ends it.
func (d *Demo) Watch() (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, len(people))
	for _, p := range people {
		go func() {
			defer func() { done <- struct{}{} }()
			for ctx.Err() == nil {
				_ = d.watch(ctx, p) // ends when the gateway hangs up
				select {
				case <-ctx.Done():
				case <-time.After(callAgain):
				}
			}
		}()
	}
	return func() {
		cancel()
		for range people {
			<-done
		}
		d.client.CloseIdleConnections()
	}
}

// watch reads the gateway's events for one person.
func (d *Demo) watch(ctx context.Context, p person) error {
	res, err := d.ask(ctx, p, "/events")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	var data []byte
	for lines.Scan() {
		line := lines.Bytes()
		if value, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			data = append(append(data, value...), '\n')
		}
		if len(line) == 0 && len(data) > 0 {
			if err := d.decided(p, data); err != nil {
				return err
			}
			data = data[:0]
		}
	}
	return lines.Err()
}

// refresh asks for the decisions anew: time alone can change them, and the
// gateway's own timers know nothing of a clock that jumps.
func (d *Demo) refresh(ctx context.Context) {
	for _, p := range people {
		res, err := d.ask(ctx, p, "/entitlements")
		if err != nil {
			continue // the panel goes on showing what it knows
		}
		var body json.RawMessage
		if json.NewDecoder(res.Body).Decode(&body) == nil {
			_ = d.decided(p, body)
		}
		res.Body.Close()
	}
}

func (d *Demo) ask(ctx context.Context, p person, route string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.Site+routes+route, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+d.token(p))
	res, err := d.client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		return nil, fmt.Errorf("%s answers %s", route, res.Status)
	}
	return res, nil
}

func (d *Demo) decided(p person, data []byte) error {
	var v struct {
		Plans map[string]access `json:"plans"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	d.journal.decided(d.box.Now(), p, v.Plans)
	return nil
}
