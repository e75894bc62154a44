package caddypolar

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"
)

// migrating is what is asked for.
type migrating struct {
	operator
	from, to, path, dsn, schema string
}

func migrateCommand() *cobra.Command {
	var m migrating
	cmd := m.flags(&cobra.Command{
		Use:   "migrate [--from bolt] --to postgres [--dsn <dsn>] [--schema <name>] | [--from postgres] --to bolt [--path <file>]",
		Short: "Moves a running gateway's store to another place, with all that is in it",
		Long: `
Copies everything while the gateway goes on: what Polar has told, passes, links, opened
checkouts, keys, the journal. Then the store takes no changes for ten minutes, and each
record is compared. Let the configuration name the new store, and reload: until then
webhooks are answered 503, and Polar sends them again. Without a reload the old store goes
on after that; then do it again, which is quicker.

A placeholder is the running Caddy's. The new place must be free, or have an earlier copy of
the same store. --from refuses if the gateway's store is of another kind.`,
		Example: `  caddy polar migrate --from bolt --to postgres
  caddy polar migrate --to postgres --dsn '{file./run/secrets/dsn}' --schema shop
  caddy polar migrate --to bolt --path /var/lib/caddy/polar.db`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := m.store()
			if err != nil {
				return err
			}
			query := make(url.Values)
			if m.from != "" {
				query.Set("from", m.from)
			}
			var v movedView
			if err := m.ask(cmd.Context(), http.MethodPost, []string{"migrate"}, query, store, &v); err != nil {
				return err
			}
			return m.tell(cmd, v, v.table)
		},
	})
	f := cmd.Flags()
	f.StringVar(&m.from, "from", "", "`kind` of the store that the gateway has: bolt or postgres")
	f.StringVar(&m.to, "to", "", "`kind` of the new store: postgres or bolt")
	f.StringVar(&m.dsn, "dsn", "", "postgres: `connection string` (default {env.DATABASE_URL}, the running Caddy's)")
	f.StringVar(&m.schema, "schema", "", "postgres: `name` of the schema (default polar)")
	f.StringVar(&m.path, "path", "", "bolt: the new `file` (default the one of a gateway that says nothing of its store)")
	return cmd
}

// store is the configuration of the new store.
func (m *migrating) store() (map[string]string, error) {
	store := map[string]string{"module": m.to}
	switch {
	case m.to == "postgres" && m.path == "":
		store["dsn"] = cmp.Or(m.dsn, "{env.DATABASE_URL}")
		if m.schema != "" {
			store["schema"] = m.schema
		}
	case m.to == "bolt" && m.dsn == "" && m.schema == "":
		if m.path != "" {
			store["path"] = m.path
		}
	default:
		return nil, errors.New("give --to postgres, with --dsn and --schema if need be, or --to bolt, with --path if need be")
	}
	return store, nil
}

func (v *movedView) table(w io.Writer) {
	row(w, "from", v.From)
	row(w, "to", v.To)
	for _, kind := range sortedKeys(v.Objects) {
		if n := v.Objects[kind]; n > 0 {
			row(w, "  "+kind, n)
		}
	}
	row(w, "next", fmt.Sprintf("let the configuration name the new store, and reload: within %s, in which webhooks are told to come again", v.left()))
}
