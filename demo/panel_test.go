package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// press presses a button of the panel, as a browser without scripts.
func (d *Demo) press(t *testing.T, form string, fields ...string) {
	t.Helper()
	values := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		values.Set(fields[i], fields[i+1])
	}
	r := send(t, http.MethodPost, d.Panel+form, values, "Sec-Fetch-Site", "same-origin", "Origin", d.Polar).wants(t, http.StatusSeeOther)
	if r.Header.Get("Location") != panelPath {
		t.Errorf("it leads to %q", r.Header.Get("Location"))
	}
}

// shows waits until the panel shows something.
func (d *Demo) shows(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		waitFor(t, text+" on the panel", func() bool { return strings.Contains(get(t, d.Panel).body, text) })
	}
}

func (d *Demo) buy(t *testing.T, p person, plan string) {
	t.Helper()
	if _, err := d.box.Buy(p.ID, p.Email, d.Products[plan][0]); err != nil {
		t.Fatal(err)
	}
}

func TestPanelIsForItsOwnPagesOnly(t *testing.T) {
	d := start(t, "http://localhost:1")
	get(t, d.Polar+"/").wants(t, http.StatusSeeOther)
	get(t, d.Panel).wants(t, http.StatusOK, "Ada Lovelace", "nothing bought yet", d.Site)
	get(t, d.Panel, "Host", "evil.example").wants(t, http.StatusMisdirectedRequest).lacks(t, "Ada")
	get(t, d.Polar+"/v1/products/", "Host", "evil.example").wants(t, http.StatusMisdirectedRequest)
	before := d.Now()
	for _, headers := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", d.Site}} {
		for _, form := range []string{"clock", "card", "webhooks"} {
			send(t, http.MethodPost, d.Panel+form, url.Values{"to": {"day"}}, headers...).wants(t, http.StatusForbidden)
		}
	}
	if d.Now().Sub(before) > time.Hour {
		t.Error("the clock was moved")
	}
	get(t, d.Panel+"clock").wants(t, http.StatusMethodNotAllowed)
}

func TestPanelRefusesNonsense(t *testing.T) {
	d := start(t, "http://localhost:1")
	for form, values := range map[string]url.Values{
		"card": {"person": {"eve"}}, "clock": {"to": {"end"}, "person": {"eve"}}, "webhooks": {"mode": {"eat"}},
	} {
		send(t, http.MethodPost, d.Panel+form, values).wants(t, http.StatusBadRequest)
	}
}

func TestClockByADay(t *testing.T) {
	d := start(t, "http://localhost:1")
	before := d.Now()
	d.press(t, "clock", "to", "day")
	if moved := d.Now().Sub(before); moved < 24*time.Hour || moved > 25*time.Hour {
		t.Errorf("moved by %s", moved)
	}
	d.shows(t, "The clock moves")
}

func TestToThePeriodsEnd(t *testing.T) {
	s := newSite(t)
	d := start(t, s.URL)
	before := d.Now()
	d.press(t, "clock", "to", "end", "person", "grace")
	d.shows(t, "Grace Hopper has no subscription that runs")
	if d.Now().Sub(before) > time.Hour {
		t.Fatal("the clock was moved")
	}
	d.buy(t, people[0], "pro")
	sub, _ := d.subscription(people[0])
	d.shows(t, "Polar: Pro, <em>active</em>", "renews "+sub.CurrentPeriodEnd.Format("2 Jan 2006"))
	if _, err := d.box.Cancel(sub.ID, "", ""); err != nil {
		t.Fatal(err)
	}
	d.shows(t, "ends "+sub.CurrentPeriodEnd.Format("2 Jan 2006"))
	d.press(t, "clock", "to", "end", "person", "ada")
	if over := d.Now().Sub(sub.CurrentPeriodEnd); over < time.Minute || over > time.Hour {
		t.Errorf("the clock is %s after the end", over)
	}
	d.shows(t, "Polar: Pro, <em>canceled</em>", "subscription.revoked")
	get(t, d.Panel).lacks(t, "Ada Lovelace has no subscription that runs")
	d.press(t, "clock", "to", "end", "person", "ada")
	d.shows(t, "Ada Lovelace has no subscription that runs")
	d.buy(t, people[0], "team")
	d.shows(t, "Polar: Team, <em>active</em>")
}

func TestFailedPayment(t *testing.T) {
	s := newSite(t)
	d := start(t, s.URL)
	d.press(t, "card", "person", "ada", "card", "bad")
	d.shows(t, "Ada Lovelace has not bought anything yet")
	d.buy(t, people[0], "team")
	d.press(t, "card", "person", "ada", "card", "bad")
	d.press(t, "clock", "to", "end", "person", "ada")
	d.shows(t, "Polar: Team, <em>past_due</em>", "subscription.past_due")
	d.press(t, "card", "person", "ada", "card", "good")
	d.shows(t, "Polar: Team, <em>active</em>")
}

func TestWebhooksOnThePanel(t *testing.T) {
	s := newSite(t)
	d := start(t, s.URL)
	d.buy(t, people[0], "pro")
	d.shows(t, "subscription.created", "<td>200</td>", "They <strong>arrive</strong>")
	d.box.Settle()
	d.shows(t, "customer.state_changed") // the last one
	d.press(t, "card", "person", "ada", "card", "good")
	d.shows(t, "customer.updated") // so that we have looked again
	if n := strings.Count(get(t, d.Panel).lacks(t, "lost on its way").body, "subscription.created"); n != 1 {
		t.Errorf("one webhook is shown %d times", n)
	}

	d.press(t, "webhooks", "mode", networkLost)
	d.box.Settle()
	arrived, _ := s.received()
	d.buy(t, people[1], "pro")
	d.shows(t, "lost on its way", "They <strong>are lost</strong>")
	d.box.Settle()
	if now, _ := s.received(); now != arrived {
		t.Errorf("%d of the lost ones have arrived", now-arrived)
	}

	d.press(t, "webhooks", "mode", networkDouble)
	events, deliveries := s.received()
	d.buy(t, people[2], "pro")
	d.box.Settle()
	moreEvents, moreDeliveries := s.received()
	if n := moreEvents - events; n == 0 || moreDeliveries-deliveries != 2*n {
		t.Errorf("%d events came %d times", n, moreDeliveries-deliveries)
	}

	d.press(t, "webhooks", "mode", networkOn)
	s.mu.Lock()
	s.status = http.StatusServiceUnavailable
	s.mu.Unlock()
	d.press(t, "card", "person", "ada", "card", "good")
	d.shows(t, "<td>503 ")
	s.CloseClientConnections()
	s.Close()
	d.press(t, "card", "person", "ada", "card", "good")
	d.shows(t, "no answer: ")
}

func TestDecisionsOnThePanel(t *testing.T) {
	s := newSite(t)
	d := start(t, s.URL)
	defer d.Watch()()
	for range people {
		<-s.streams
	}
	until := time.Date(2027, 1, 2, 3, 4, 0, 0, time.UTC)
	closed := access{Reason: "no_subscription"}
	s.events <- event(closed, closed)
	d.shows(t, `<span class="bad">closed</span> <strong>pro</strong> <small>no_subscription</small>`)
	get(t, d.Panel).lacks(t, "<td>decision</td>") // that nobody has bought is no news
	s.events <- event(access{true, "active", &until}, closed)
	d.shows(t, `<span class="good">open</span> <strong>pro</strong> <small>active until 2 Jan 2027 03:04 UTC</small>`, "Ada Lovelace, pro: open")
	get(t, d.Panel).lacks(t, "Ada Lovelace, team:", "Grace Hopper, ")

	s.hangUp <- struct{}{}
	if <-s.streams == "" {
		t.Error("nobody called again")
	}
}

// TestClockAsksAnew: time alone can change a decision, without any event.
func TestClockAsksAnew(t *testing.T) {
	s := newSite(t)
	until := time.Date(2027, 1, 2, 3, 4, 0, 0, time.UTC)
	s.says["grace"] = says(access{}, access{Reason: "past_due", Until: &until})
	d := start(t, s.URL)
	d.press(t, "clock", "to", "day")
	get(t, d.Panel).wants(t, http.StatusOK, "past_due since 2 Jan 2027 03:04 UTC")
	for _, p := range people {
		if s.asked[p.ID] != 1 {
			t.Errorf("%s was asked for %d times", p.ID, s.asked[p.ID])
		}
	}
}

func TestFeed(t *testing.T) {
	s := newSite(t)
	d := start(t, s.URL)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, d.Panel+"feed", nil)
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := res.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Error(got)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	next := func() map[string]string {
		t.Helper()
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				var v map[string]string
				if err := json.Unmarshal([]byte(data), &v); err != nil {
					t.Fatal(err)
				}
				return v
			}
		}
		t.Fatal("the feed has ended: ", lines.Err())
		return nil
	}
	page := get(t, d.Panel).body
	for id := range next() {
		if !strings.Contains(page, `id="`+id+`"`) {
			t.Errorf("the panel has no %s", id)
		}
	}
	d.buy(t, people[1], "team")
	for until := "Polar: Team, <em>active</em>"; ; {
		news := next()
		if _, ok := news["person-ada"]; ok {
			t.Error("what has not changed is sent again")
		}
		if strings.Contains(news["person-grace"], until) {
			break
		}
	}
}

func TestEntriesAreInOrder(t *testing.T) {
	d := start(t, "http://localhost:1")
	for _, hours := range []time.Duration{2, 1, 3} {
		d.journal.add(entry{At: d.Now().Add(hours * time.Hour), Title: hours.String()})
	}
	got := ""
	for _, e := range d.view().Entries {
		got += e.Title + " "
	}
	if got != "3ns 2ns 1ns " {
		t.Error(got)
	}
}

func TestJournalIsBounded(t *testing.T) {
	j := newJournal()
	for range 3 * kept {
		j.add(entry{Title: "x"})
	}
	if len(j.entries) != kept {
		t.Error(len(j.entries))
	}
}
