package postgres_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-polar/caddy-polar/cache"
)

// TestStagesOfWhoIsGone: who is not among all users any more keeps no stages, wherever in
// their order.
func TestStagesOfWhoIsGone(t *testing.T) {
	t.Parallel()
	schema := newSchema()
	s := open(t, server.DSN(), schema)
	stages := func(users ...string) map[string][]cache.Stage {
		of := make(map[string][]cache.Stage)
		for _, user := range users {
			of[user] = []cache.Stage{{User: user, Plan: "pro", Reason: "active"}}
		}
		return of
	}
	var many []string
	for n := range 2500 {
		many = append(many, fmt.Sprintf("m%04d", n))
	}
	conn, err := pgx.Connect(t.Context(), server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, c := range []struct {
		only *cache.Users
		of   []string
		want []string
	}{
		{nil, slices.Concat([]string{"a", "ab", "b"}, many, []string{"x", "z"}), slices.Concat([]string{"a", "ab", "b"}, many, []string{"x", "z"})},
		{nil, []string{"y"}, slices.Concat([]string{"a", "ab", "b"}, many, []string{"x", "y", "z"})},
		{&cache.Users{UpTo: "b"}, []string{"a", "b"}, slices.Concat([]string{"a", "b"}, many, []string{"x", "y", "z"})},
		{&cache.Users{After: "b", UpTo: "x"}, []string{"m2001", "x"}, []string{"a", "b", "m2001", "x", "y", "z"}},
		{&cache.Users{After: "x"}, []string{"y"}, []string{"a", "b", "m2001", "x", "y"}},
		{&cache.Users{}, nil, nil},
	} {
		if c.only != nil {
			if err := s.DropStages(t.Context(), *c.only, stages(c.of...)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.SetStages(t.Context(), stages(c.of...), nil); err != nil {
			t.Fatal(err)
		}
		rows, err := conn.Query(t.Context(), "SELECT split_part(encode(key, 'escape'), '\\000', 1) FROM "+schema+".store_stages ORDER BY key")
		if err != nil {
			t.Fatal(err)
		}
		got, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%+v leaves %v (%v)", c.only, got[:min(len(got), 10)], err)
		}
	}
}
