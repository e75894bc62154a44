package caddypolar

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/polar/box"
	"github.com/caddy-polar/caddy-polar/polar/box/boxtest"
)

func TestAmounts(t *testing.T) {
	for n, want := range map[json.Number]string{
		"0": "0.00", "5": "0.05", "-5": "-0.05", "14900": "149.00", "14900.5": "149.005",
		"900719925474099301": "9007199254740993.01", // no float64 holds it
	} {
		if got := cents(n); got != want {
			t.Errorf("%s cents are %s, want %s", n, got, want)
		}
	}
	for n, want := range map[json.Number]string{"0": "0.0 %", "0.0526315789": "5.3 %", "1": "100.0 %"} {
		if got := percent(n); got != want {
			t.Errorf("%s is %s, want %s", n, got, want)
		}
	}
}

func TestBars(t *testing.T) {
	for text, want := range map[string]string{
		"0 1 2 3 4 5 6 7": barHeights, "0 0": "▁▁", "100": "█", "-7 7": "▁█", "1 - 1": "█ █", "1 1000": "▁█", "": "",
	} {
		var values []*json.Number
		for word := range strings.FieldsSeq(text) {
			if n := json.Number(word); word == "-" {
				values = append(values, nil)
			} else {
				values = append(values, &n)
			}
		}
		if got := bars(values); got != want {
			t.Errorf("%s is %q, want %q", text, got, want)
		}
	}
}

// revenueOf runs the command against the admin API of an app.
func revenueOf(t *testing.T, app *App, args ...string) (string, error) {
	t.Helper()
	s := httptest.NewServer(newAdminAPI(t, app).http)
	defer s.Close()
	var out bytes.Buffer
	cmd := revenueCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(append(args, "--address", s.Listener.Addr().String()))
	cmd.SetOut(&out)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestRevenueCommand(t *testing.T) {
	app, b, _ := tendedApp(t)
	month := b.Now().UTC().Format("2006-01") + "-01"
	out, err := revenueOf(t, app)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"TOTAL", "BY MONTH", "▁▁▁▁▁▁▁▁▁▁▁█", "PERIOD", "CHURN RATE", month + "  10.00    1       10.00  1       1    0        0.0 %"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	out, err = revenueOf(t, app, "--json", "--interval", "year")
	var v revenueView
	if err != nil || json.Unmarshal([]byte(out), &v) != nil || len(v.Periods) != 5 || *v.Totals.Revenue != "1000" {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := revenueOf(t, app, "--from", "soon"); err == nil || !strings.Contains(err.Error(), "2026-01-31") {
		t.Error(err)
	}
}

func TestRevenueNeedsItsScope(t *testing.T) {
	b := boxtest.Start(t, box.Options{Start: time.Now(), SigningClock: time.Now})
	app, _ := provisioned(t, "server "+b.URL+"\naccess_token "+b.NewToken("orders:read")+"\nsync off\nplan pro "+testProduct)
	_, err := revenueOf(t, app)
	if err == nil || !strings.Contains(err.Error(), "metrics:read") || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
}
