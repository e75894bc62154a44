package integration

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestQueries: an app asks the database who may what, as a user who may do nothing else.
func TestQueries(t *testing.T) {
	t.Parallel()
	db := startDatabase(t)
	s := newServer(t)
	s.env["DATABASE_URL"] = "postgres://gateway@127.0.0.1:" + db.Port + "/postgres"
	as := func(user string) *pgx.Conn {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), "postgres://"+user+"@127.0.0.1:"+db.Port+"/postgres")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		return conn
	}
	run := func(conn *pgx.Conn, statements ...string) {
		t.Helper()
		for _, statement := range statements {
			if _, err := conn.Exec(t.Context(), statement); err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
		}
	}
	// As the documentation says.
	run(as("postgres"), "CREATE ROLE gateway LOGIN", "CREATE SCHEMA polar AUTHORIZATION gateway", "CREATE ROLE app LOGIN", "CREATE ROLE app_reads", "GRANT app_reads TO app")
	config := s.caddyfile(strings.Replace(sharedStore, "polar {", "polar {\ngrace {\nrenewal 3d\n}", 1), s.paywall(t, "app"))
	s.start(t, config)
	run(as("gateway"), "GRANT USAGE ON SCHEMA polar TO app_reads", "GRANT SELECT ON polar.entitlements, polar.subscriptions, polar.customers TO app_reads")

	app := as("app")
	ask := func(query string, args ...any) string {
		rows, err := app.Query(t.Context(), query, args...)
		if err != nil {
			return err.Error()
		}
		lines, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
			values, err := row.Values()
			return strings.TrimSpace(fmt.Sprintln(values...)), err
		})
		if err != nil {
			return err.Error()
		}
		return strings.Join(lines, "; ")
	}
	is := func(want, query string, args ...any) {
		t.Helper()
		waitFor(t, fmt.Sprintf("%q from %s", want, query), func() bool { return ask(query, args...) == want })
	}
	u := newSubscriber(productPro)
	const mine = "SELECT plan, reason, allowed_until > now() + interval '31 days' AND allowed_until < now() + interval '33 days' FROM polar.entitlements WHERE user_id = $1"
	s.do(t, http.MethodPost, "app", webhookPath, signed(s.key, u.active(t))).wants(t, http.StatusOK)
	is("pro active true", mine, u.user) // a period of 29 days more, and three of grace
	is(u.user+" active true", "SELECT user_id, status, current_period_end > now() FROM polar.subscriptions WHERE id = $1", u.subscription)
	is(u.user+" "+u.user, "SELECT external_id, user_id FROM polar.customers WHERE id = $1", u.customer)
	is("1", "SELECT count(*) FROM polar.entitlements JOIN polar.subscriptions USING (user_id)")

	ends := wire(now.Add(-day))
	revoked := u.event(t, "subscription.revoked", object{"canceled_at": ends, "ends_at": ends, "ended_at": ends})
	s.do(t, http.MethodPost, "app", webhookPath, signed(s.key, revoked)).wants(t, http.StatusOK)
	is("", mine, u.user)
	is("canceled", "SELECT status FROM polar.subscriptions WHERE user_id = $1", u.user)

	// A plan gets another name: all is told anew.
	other := newSubscriber(productBasic)
	s.do(t, http.MethodPost, "app", webhookPath, signed(s.key, other.active(t))).wants(t, http.StatusOK)
	is("basic", "SELECT plan FROM polar.entitlements WHERE user_id = $1", other.user)
	renamed := strings.NewReplacer("plan basic", "plan team", "/basic/* basic", "/basic/* team").Replace(config)
	s.load(t, renamed).wants(t, http.StatusOK)
	is("team", "SELECT plan FROM polar.entitlements WHERE user_id = $1", other.user)
	// What apps ask for is found by indexes, however much there is.
	run(app, "SET enable_seqscan = off", "SET enable_bitmapscan = off")
	for _, query := range []string{
		"SELECT * FROM polar.entitlements WHERE user_id = 'ada'", "SELECT * FROM polar.subscriptions WHERE user_id = 'ada'",
		"SELECT * FROM polar.subscriptions WHERE id = 'x'", "SELECT * FROM polar.customers WHERE user_id = 'ada'", "SELECT * FROM polar.customers WHERE id = 'x'",
	} {
		if plan := ask("EXPLAIN " + query); !strings.Contains(plan, "Index Scan") || strings.Contains(plan, "Seq Scan") {
			t.Errorf("%s: %s", query, plan)
		}
	}
	for _, query := range []string{"SELECT * FROM polar.store_keys", "SELECT * FROM polar.store_meta", "DELETE FROM polar.store_head", "CREATE TABLE polar.x ()"} {
		if got := ask(query); !strings.Contains(got, "permission denied") {
			t.Errorf("%s: %s", query, got)
		}
	}
}
