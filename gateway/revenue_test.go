package gateway

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/polar"
	"github.com/caddy-polar/caddy-polar/polar/box"
)

func TestRevenueSpans(t *testing.T) {
	now := time.Date(2026, 3, 31, 23, 59, 59, 0, time.FixedZone("", -3600)) // the next day in UTC
	for _, tt := range []struct {
		interval, from, to string
		want               string // from, to and interval, or words of the refusal
	}{
		{"", "", "", "2025-05-01 2026-04-01 month"},
		{"month", "", "2026-03-31", "2025-04-01 2026-03-31 month"},
		{"day", "", "", "2026-03-03 2026-04-01 day"},
		{"week", "", "2026-03-31", "2026-01-13 2026-03-31 week"},
		{"year", "", "", "2022-01-01 2026-04-01 year"},
		{"day", "2026-01-01", "2026-01-01", "2026-01-01 2026-01-01 day"},
		{"day", "2025-01-01", "2026-01-02", "2025-01-01 2026-01-02 day"},
		{"day", "2025-01-01", "2026-01-03", "at most 366 days by day, and these are 367"},
		{"week", "2025-01-01", "2026-01-08", "at most 371"},
		{"month", "2020-01-01", "", "at most 1460"},
		{"year", "2010-01-01", "", "at most 3650"},
		{"", "2026-04-02", "", "2026-04-02 is after 2026-04-01"},
		{"hour", "", "", "day, week, month and year"},
	} {
		s := RevenueSpan{Interval: tt.interval}
		if tt.from != "" {
			s.From = mustTime(tt.from + "T00:00:00Z")
		}
		if tt.to != "" {
			s.To = mustTime(tt.to + "T00:00:00Z")
		}
		got := ""
		if err := s.complete(now); err != nil {
			got = err.Error()
		} else {
			got = s.From.Format(time.DateOnly) + " " + s.To.Format(time.DateOnly) + " " + s.Interval
		}
		if !strings.Contains(got, tt.want) {
			t.Errorf("%+v: %s", tt, got)
		}
	}
}

func TestRevenue(t *testing.T) {
	s := newShop(t, box.Options{Start: time.Date(2026, 9, 10, 0, 0, 0, 0, time.UTC)})
	for _, product := range []box.Product{s.pro, s.lifetime} {
		if _, err := s.box.Buy("ada", "ada@example.com", product.ID); err != nil {
			t.Fatal(err)
		}
	}
	s.box.Advance(25 * day)
	r, err := s.g.Revenue(t.Context(), RevenueSpan{})
	if err != nil || len(r.Periods) != 12 {
		t.Fatal(r, err)
	}
	sold, now := r.Periods[10], r.Periods[11]
	if sold.Timestamp.Format(time.DateOnly) != "2026-09-01" || sold.Values[MetricRevenue] != "10900" || sold.Values[MetricOrders] != "2" {
		t.Error(sold)
	}
	if now.Values[MetricRevenue] != "0" || now.Values[MetricMRR] != "1000" || now.Values[MetricActive] != "1" {
		t.Error(now)
	}
	if r.Totals[MetricRevenue] != "10900" || r.Totals[MetricActive] != "1" || len(r.Totals) != len(revenueMetrics) {
		t.Error(r.Totals)
	}

	s.sleeps = func(time.Duration) error { return nil }
	s.box.SetTrouble(box.Trouble{HTML: true})
	if _, err := s.g.Revenue(t.Context(), RevenueSpan{}); !errors.Is(err, polar.ErrUnavailable) {
		t.Error(err)
	}
}

func TestRevenueNeedsItsScope(t *testing.T) {
	s := newShop(t, box.Options{})
	poor := newShopAt(t, s.box, withToken(s.box.NewToken("orders:read")))
	if _, err := poor.g.Revenue(t.Context(), RevenueSpan{}); !errors.Is(err, polar.ErrScope) || !strings.Contains(err.Error(), "metrics:read") {
		t.Error(err)
	}
	none := newShopAt(t, s.box, withToken(""))
	if _, err := none.g.Revenue(t.Context(), RevenueSpan{}); !errors.Is(err, ErrNotConfigured) {
		t.Error(err)
	}
}
