package caddypolar

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"
)

// migrating is what is asked for.
type migrating struct {
	operator
	to, path, dsn, schema string
}

func migrateCommand() *cobra.Command {
	var m migrating
	cmd := m.flags(&cobra.Command{
		Use:   "migrate --to postgres --dsn <dsn> | --to bolt --path <file>",
		Short: "Moves a running gateway's store to another place, with all that is in it",
		Long: `
Copies everything while the gateway goes on: what Polar has told, passes, links, opened
checkouts, keys, the journal. Then the store takes no changes for ten minutes, and each
record is compared. Let the configuration name the new store, and reload: until then
webhooks are answered 503, and Polar sends them again. Without a reload the old store goes
on after that; then do it again, which is quicker.

A placeholder is the running Caddy's: '{env.DATABASE_URL}'. The new place must be free, or
have an earlier copy of the same store.`,
		Example: `  caddy polar migrate --to postgres --dsn '{env.DATABASE_URL}' && caddy reload
  caddy polar migrate --to bolt --path /var/lib/caddy/polar.db`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := m.store()
			if err != nil {
				return err
			}
			var v movedView
			if err := m.ask(cmd.Context(), http.MethodPost, []string{"migrate"}, nil, store, &v); err != nil {
				return err
			}
			return m.tell(cmd, v, v.table)
		},
	})
	f := cmd.Flags()
	f.StringVar(&m.to, "to", "", "`kind` of the new store: postgres or bolt")
	f.StringVar(&m.dsn, "dsn", "", "postgres: `connection string`, best as a placeholder")
	f.StringVar(&m.schema, "schema", "", "postgres: `name` of the schema (default polar)")
	f.StringVar(&m.path, "path", "", "bolt: the new `file`")
	return cmd
}

// store is the configuration of the new store.
func (m *migrating) store() (map[string]string, error) {
	store := map[string]string{"module": m.to}
	switch {
	case m.to == "postgres" && m.dsn != "" && m.path == "":
		store["dsn"] = m.dsn
		if m.schema != "" {
			store["schema"] = m.schema
		}
	case m.to == "bolt" && m.path != "" && m.dsn == "" && m.schema == "":
		store["path"] = m.path
	default:
		return nil, errors.New("give --to postgres with --dsn, or --to bolt with --path")
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
