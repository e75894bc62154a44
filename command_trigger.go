package caddypolar

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/caddy-polar/caddy-polar/polar/box"
)

const (
	triggerURL       = "http://localhost:8080/auth/polar/webhook"
	triggerSecretEnv = "POLAR_WEBHOOK_SECRET"
	// triggerTimeout and triggerAnswer are Polar's: how long it waits for an
	// answer, and how much of one it keeps.
	triggerTimeout = 10 * time.Second
	triggerAnswer  = 2048
)

// trigger is what is asked for.
type trigger struct {
	url, secretEnv                           string
	user, email, product, organization       string
	settings                                 []string
	secretStdin, legacy, print, json, listed bool
}

func triggerCommand() *cobra.Command {
	var t trigger
	cmd := &cobra.Command{
		Use:   "trigger <event> [--user <id>] [--product <id>] [--set <key>=<value>]… [--url <address>]",
		Short: "Sends a signed, realistic Polar webhook to a gateway, or to any other receiver",
		Long: `
Invents a customer's life that leads to the event now, and posts its webhook as
Polar would: complete, signed with the secret in $` + triggerSecretEnv + `, within
` + triggerTimeout.String() + `, following no redirect. All ids are new each time. What is said is
believed: a gateway opens and closes for the user what the event says.

For the next event of the same subscription, give its id: --set id=<id>. Dots
reach further into the webhook's data: --set customer.name=Ada. A value that is
JSON is taken as such.

The organization is one that nobody has, which a gateway takes for none. It
drops the facts of another organization than its own: --organization shows that.

Fails when the answer is not 2xx.`,
		Example: `  caddy polar trigger subscription.active --user ada --product $POLAR_PRO_PRODUCT
  caddy polar trigger subscription.past_due --user ada --set id=<id of the subscription>
  caddy polar trigger order.paid --print --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if t.listed {
				return t.list(cmd.OutOrStdout())
			}
			if len(args) == 0 {
				return errors.New(`which event? "caddy polar trigger --list" lists all of them`)
			}
			return t.run(cmd, args[0])
		},
		DisableFlagsInUseLine: true,
	}
	f := cmd.Flags()
	f.StringVar(&t.user, "user", "usr_demo", "external id of the user")
	f.StringVar(&t.email, "email", "", "the user's e-mail (default: made of the user)")
	f.StringVar(&t.product, "product", "", "id of the product (default: a new one, of no plan)")
	f.StringVar(&t.organization, "organization", box.SampleOrganization, "id of the organization")
	f.StringArrayVar(&t.settings, "set", nil, "`key=value` in the webhook's data; repeatable")
	f.StringVar(&t.url, "url", triggerURL, "`address` of the receiver")
	f.StringVar(&t.secretEnv, "secret-env", triggerSecretEnv, "`name` of the environment variable that holds the secret")
	f.BoolVar(&t.secretStdin, "secret-stdin", false, "read the secret from standard input")
	f.BoolVar(&t.legacy, "legacy", false, "sign with the whole secret, also if Polar would decode it")
	f.BoolVar(&t.print, "print", false, "print the request, unsigned, and do not send it")
	f.BoolVar(&t.json, "json", false, "print the result as JSON")
	f.BoolVar(&t.listed, "list", false, "list all events")
	cmd.MarkFlagsMutuallyExclusive("secret-env", "secret-stdin")
	return cmd
}

func (t *trigger) list(w io.Writer) error {
	if t.json {
		return printJSON(w, map[string][]string{"events": box.EventTypes()})
	}
	_, err := fmt.Fprintln(w, strings.Join(box.EventTypes(), "\n"))
	return err
}

func (t *trigger) run(cmd *cobra.Command, event string) error {
	to, err := url.Parse(t.url)
	if err != nil || to.Scheme != "http" && to.Scheme != "https" || to.Hostname() == "" {
		return fmt.Errorf("--url: it must be a whole address, like %s", triggerURL) // it may hold a password
	}
	e, err := t.sample(event)
	if err != nil {
		return err
	}
	if t.print {
		return t.show(cmd.OutOrStdout(), to, e)
	}
	secret, err := t.secret(cmd.InOrStdin())
	if err != nil {
		return err
	}
	answer, err := t.send(cmd.Context(), to, secret, e)
	if err != nil {
		return err
	}
	return t.tell(cmd.OutOrStdout(), to, answer, e)
}

func (t *trigger) sample(event string) (*box.SampleEvent, error) {
	if !slices.Contains(box.EventTypes(), event) {
		_, err := box.Sample(event, box.SampleOptions{})
		return nil, fmt.Errorf(`%w ("caddy polar trigger --list" lists all of them)`, err)
	}
	o := box.SampleOptions{User: t.user, Email: t.email, ProductID: t.product, OrganizationID: t.organization}
	for _, text := range t.settings {
		s, err := box.ParseSetting(text)
		if err != nil {
			return nil, fmt.Errorf("--set: %w", err)
		}
		o.Set = append(o.Set, s)
	}
	return box.Sample(event, o)
}

// variableRE is the usual spelling of a variable's name. What looks different
// may be a secret that stands where the name should, and is not repeated.
var variableRE = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)

func (t *trigger) secret(stdin io.Reader) (string, error) {
	if t.secretStdin {
		raw, err := io.ReadAll(io.LimitReader(stdin, 4096))
		secret := strings.TrimRight(string(raw), "\r\n")
		if err == nil && strings.TrimSpace(secret) == "" {
			err = errors.New("there is none")
		}
		if err != nil {
			return "", fmt.Errorf("no webhook secret on standard input: %w", err)
		}
		return secret, nil
	}
	if secret := os.Getenv(t.secretEnv); strings.TrimSpace(secret) != "" {
		return secret, nil
	}
	if !variableRE.MatchString(t.secretEnv) {
		return "", errors.New("no webhook secret: --secret-env is the name of an environment variable, and there is none of this name")
	}
	return "", fmt.Errorf("no webhook secret: set %s to the one of the receiver, name another variable with --secret-env, or pipe it to --secret-stdin", t.secretEnv)
}

// triggerAnswered is a receiver's answer.
type triggerAnswered struct {
	status int
	line   string // the first of the body
}

func triggerClient() *http.Client {
	return &http.Client{
		Timeout:       triggerTimeout,
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (t *trigger) send(ctx context.Context, to *url.URL, secret string, e *box.SampleEvent) (*triggerAnswered, error) {
	kind := box.KindOf(secret)
	if t.legacy {
		kind = box.SecretMerchant
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), strings.NewReader(e.Body))
	if err != nil {
		return nil, err
	}
	req.Header = e.Signed(secret, kind, time.Now())
	res, err := triggerClient().Do(req)
	if err != nil {
		return nil, unsent(to, err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, triggerAnswer)) // the status decides
	said := string(body)
	if len(secret) >= 8 { // a receiver may echo what it has been configured with
		said = strings.ReplaceAll(said, secret, "REDACTED")
	}
	line := firstLine(said)
	switch status := fmt.Sprintf("%s answered %d %s", to.Redacted(), res.StatusCode, http.StatusText(res.StatusCode)); {
	case res.StatusCode/100 == 2:
		return &triggerAnswered{res.StatusCode, line}, nil
	case res.StatusCode/100 == 3:
		return nil, fmt.Errorf("%s, to %s: Polar follows no redirect, so give the address that it ends at to --url",
			status, cmp.Or(firstLine(res.Header.Get("Location")), "nowhere"))
	case res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusMethodNotAllowed:
		return nil, fmt.Errorf("%s: check the path of --url: %s", status, cmp.Or(sentence(said), line, "no more was said"))
	default:
		return nil, fmt.Errorf("%s: %s", status, cmp.Or(sentence(said), line, "no more was said"))
	}
}

// unsent says what to check when there was no answer.
func unsent(to *url.URL, err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // it names the address again
	}
	where := to.Redacted()
	timeout, isNet := errors.AsType[net.Error](err)
	_, noHost := errors.AsType[*net.DNSError](err)
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s: connection refused: is Caddy running, and is this its port? Give another address with --url", where)
	case noHost:
		return fmt.Errorf("%s: there is no such host: check --url", where)
	case untrusted:
		return fmt.Errorf("%s: its certificate is not trusted: %w; for certificates of Caddy's own authority, run \"caddy trust\"", where, err)
	case isNet && timeout.Timeout():
		return fmt.Errorf("%s: no answer within %s, after which Polar would try again", where, triggerTimeout)
	}
	return fmt.Errorf("%s: %s: check --url", where, firstLine(err.Error()))
}

// sentence is what an answer in JSON says has gone wrong.
func sentence(body string) string {
	var problem map[string]any
	if json.Unmarshal([]byte(body), &problem) != nil {
		return ""
	}
	for _, key := range []string{"detail", "error", "message", "title"} {
		if text, ok := problem[key].(string); ok && text != "" {
			return firstLine(text)
		}
	}
	return ""
}

// firstLine is fit for a terminal, whoever wrote the text.
func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	line = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(line, ""))
	if runes := []rune(line); len(runes) > 200 {
		line = string(runes[:200]) + "…"
	}
	return line
}

// tell says what was sent, with what is needed for the next event.
func (t *trigger) tell(w io.Writer, to *url.URL, a *triggerAnswered, e *box.SampleEvent) error {
	if t.json {
		return printJSON(w, map[string]any{
			"event": e.Type, "id": e.ObjectID, "user": t.user, "productId": e.ProductID, "organizationId": t.organization,
			"webhookId": e.ID, "url": to.Redacted(), "status": a.status, "answer": a.line,
		})
	}
	_, err := fmt.Fprintf(w, `%s sent to %s
  answer        %d %s
  user          %s
  id            %s
  product       %s
  organization  %s
  webhook-id    %s
`, e.Type, to.Redacted(), a.status, cmp.Or(a.line, "(empty: is it the right address?)"), t.user, e.ObjectID, cmp.Or(e.ProductID, "-"), t.organization, e.ID)
	return err
}

// show prints the request. Without its signature it is of no use to anybody
// who finds it in a log.
func (t *trigger) show(w io.Writer, to *url.URL, e *box.SampleEvent) error {
	header := e.Header(time.Now())
	if t.json {
		flat := map[string]string{}
		for name := range header {
			flat[strings.ToLower(name)] = header.Get(name)
		}
		return printJSON(w, map[string]any{"url": to.Redacted(), "headers": flat, "body": json.RawMessage(e.Body)})
	}
	var b strings.Builder
	fmt.Fprintf(&b, "POST %s\n", to.Redacted())
	names := make([]string, 0, len(header))
	for name := range header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&b, "%s: %s\n", strings.ToLower(name), header.Get(name))
	}
	_, err := fmt.Fprintf(w, "%s\n%s\n", b.String(), e.Body)
	return err
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
