package caddypolar

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"
)

// operator talks to the admin API of a running Caddy.
type operator struct {
	address string // empty: where caddy reload looks
	gateway string
	json    bool
}

// flags adds the flags that all these commands have.
func (o *operator) flags(cmd *cobra.Command) *cobra.Command {
	f := cmd.Flags()
	f.StringVar(&o.address, "address", "", "`address` of the running Caddy's admin API (default "+caddy.DefaultAdminListen+")")
	f.StringVar(&o.gateway, "gateway", "", "`name` of the gateway (default: default, or the only one)")
	f.BoolVar(&o.json, "json", false, "print the answer as JSON")
	cmd.DisableFlagsInUseLine = true
	return cmd
}

// adminRefusal is an answer that says what is wrong with the question.
type adminRefusal struct {
	status int
	text   string
}

func (e *adminRefusal) Error() string { return e.text }

// ask sends a request and reads the answer as JSON.
func (o *operator) ask(ctx context.Context, method string, parts []string, query url.Values, body, into any) error {
	res, err := o.send(ctx, method, parts, query, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return o.unreached(err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields() // or any JSON would do
	if d.Decode(into) != nil {
		return o.unexpected()
	}
	return nil
}

// maxAnswer is the largest answer that is read into memory.
const maxAnswer = 64 << 20

// where is the admin API's address.
func (o *operator) where() string { return cmp.Or(o.address, caddy.DefaultAdminListen) }

// send sends a request and gives back an answer of status 200, whose body is to be
// closed. parts are those of the path, not encoded yet.
func (o *operator) send(ctx context.Context, method string, parts []string, query url.Values, body any) (*http.Response, error) {
	addr, err := caddy.ParseNetworkAddress(o.where())
	if err != nil || addr.PortRangeSize() > 1 {
		return nil, errors.New("--address: it must be like localhost:2019 or unix//run/caddy-admin.sock")
	}
	host := addr.JoinHostPort(0)
	dial, origin := host, "http://"+host
	if addr.IsUnixNetwork() || addr.IsFdNetwork() {
		dial, _, _ = strings.Cut(dial, "|") // its permissions
		host, origin = "127.0.0.1", ""      // Caddy takes no origin there
	}
	var sent io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		sent = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+host+o.path(parts, query), sent)
	if err != nil {
		return nil, errors.New("--address: it must be like localhost:2019")
	}
	req.Header.Set("Content-Type", "application/json")
	if origin != "" {
		req.Header.Set("Origin", origin)
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, addr.Network, dial)
		},
	}}
	res, err := client.Do(req)
	if err != nil {
		return nil, o.unreached(err)
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	defer res.Body.Close()
	return nil, o.refused(res)
}

func (o *operator) path(parts []string, query url.Values) string {
	path := strings.TrimSuffix(adminPath, "/")
	for _, part := range parts {
		part = url.PathEscape(part)
		if part == "." || part == ".." { // a user's id, and no step
			part = strings.ReplaceAll(part, ".", "%2E")
		}
		path += "/" + part
	}
	if o.gateway != "" {
		if query == nil {
			query = url.Values{}
		}
		query.Set("gateway", o.gateway)
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return path
}

func (o *operator) unreached(err error) error {
	address := o.where()
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted")
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("%s: no Caddy answers there: start it, or say where its admin API is with --address <host:port>", address)
	}
	return fmt.Errorf("%s: %s: is that the admin API of a running Caddy? Say where it is with --address <host:port>", address, firstLine(err.Error()))
}

func (o *operator) unexpected() error {
	return fmt.Errorf("%s answers, but not as expected: is it the admin API of a Caddy of this version?", o.where())
}

// refused is what an answer says that is not of status 200.
func (o *operator) refused(res *http.Response) error {
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err != nil {
		return o.unreached(err)
	}
	if said := sentence(string(raw)); said != "" {
		return &adminRefusal{res.StatusCode, said}
	}
	if res.StatusCode == http.StatusNotFound {
		return fmt.Errorf("%s: the Caddy there has no Polar gateway built in", o.where())
	}
	return fmt.Errorf("%s answered %d %s", o.where(), res.StatusCode, http.StatusText(res.StatusCode))
}

// tell prints an answer: as JSON, or as a table.
func (o *operator) tell(cmd *cobra.Command, answer any, table func(io.Writer)) error {
	if o.json {
		return printJSON(cmd.OutOrStdout(), answer)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	table(w)
	return w.Flush()
}

// row prints one line of a table. What stands in a cell is made fit for a
// terminal, whoever wrote it.
func row(w io.Writer, cells ...any) {
	texts := make([]string, len(cells))
	for i, cell := range cells {
		switch c := cell.(type) {
		case moment:
			if !c.IsZero() {
				texts[i] = formatTime(c.Time)
			}
		case float64:
			texts[i] = time.Duration(c * float64(time.Second)).Round(time.Millisecond).String()
		default:
			texts[i] = strings.Map(func(r rune) rune {
				if !unicode.IsPrint(r) {
					return -1
				}
				return r
			}, fmt.Sprint(c))
		}
		texts[i] = cmp.Or(texts[i], "-")
	}
	fmt.Fprintln(w, strings.Join(texts, "\t"))
}

// yes is a bool as a table tells it.
func yes(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}
