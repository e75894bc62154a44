package caddypolar

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-polar/caddy-polar/gateway"
)

func webhookCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "webhook <command>",
		Short: "Sets up the webhook endpoint at Polar",
	}
	cmd.AddCommand(webhookSetupCommand())
	refuseUnknown(cmd)
	return cmd
}

func webhookSetupCommand() *cobra.Command {
	var o operator
	var address string
	cmd := o.flags(&cobra.Command{
		Use:   "setup --url <address>",
		Short: "Creates or mends the webhook endpoint at Polar, and checks that webhooks arrive",
		Long: `
Sees to it that Polar has a webhook endpoint for a running gateway: with this
address, enabled, of the format Raw, with all types of events that the gateway
needs. One that has a secret of the gateway, or the address, is mended; else one is
created. None is deleted, and its own events and name stay.

Then the gateway sends itself a signed webhook that says nothing, by way of the
address, and tells what keeps it from coming back.

A secret that the gateway does not have yet is printed, with where to put it. Fails
when the endpoint could not be set up, or webhooks do not arrive.`,
		Example: `  caddy polar webhook setup --url https://app.example.com`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var v setupView
			body := map[string]string{"url": address}
			if err := o.ask(cmd.Context(), http.MethodPost, []string{"webhook", "setup"}, nil, body, &v); err != nil {
				return err
			}
			if err := o.tell(cmd, v, v.table); err != nil {
				return err
			}
			return v.failure()
		},
	})
	cmd.Flags().StringVar(&address, "url", "", "public `address` of the webhook route; without a path it is "+gateway.WebhookPath)
	if err := cmd.MarkFlagRequired("url"); err != nil {
		panic(err)
	}
	return cmd
}

func (v *setupView) table(w io.Writer) {
	state := map[gateway.SetupState]string{
		gateway.SetupCreated: "created", gateway.SetupMended: "mended", gateway.SetupFine: "as it should be",
		gateway.SetupMissing: "there is none", gateway.SetupWrong: "not mended", gateway.SetupUnread: "not known",
	}[gateway.SetupState(v.State)]
	if v.ID != "" {
		state += ": " + v.ID
	}
	row(w, "endpoint at Polar", state)
	address := v.URL
	if v.PathAdded {
		address += " (the path was added)"
	}
	row(w, "url", address)
	tense := "  was"
	if v.State == string(gateway.SetupWrong) {
		tense = "  is"
	}
	for _, field := range v.Wrong {
		row(w, tense, map[string]string{
			"url": "at " + v.URLBefore, "format": "of another format than raw", "events": "without " + someOf(v.Lacked), "enabled": "disabled",
		}[field])
	}
	switch {
	case v.Check.OK:
		row(w, "check", "a signed webhook to the url has reached this gateway")
	case v.Secret != "" && v.Check.Problem == string(gateway.CheckNoSecret):
		row(w, "check", "to be done once the secret is set")
	default:
		row(w, "check", v.Check.Says)
	}
	if v.Secret == "" {
		return
	}
	row(w, "secret", v.Secret)
	fmt.Fprint(w, `
The gateway does not have this secret yet, and cannot take Polar's webhooks without:
  1. set POLAR_WEBHOOK_SECRET to it where Caddy starts
  2. webhook_secret {env.POLAR_WEBHOOK_SECRET} in the polar block; with others, beside them
  3. restart Caddy, as a reload does not see a changed environment
  4. run this command again
`)
}

// someOf names a few of many.
func someOf(names []string) string {
	const few = 5
	if len(names) <= few {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:few-1], ", "), len(names)-few+1)
}

// failure is why webhooks do not come. A secret that is to be set is none: that
// is the next step.
func (v *setupView) failure() error {
	switch {
	case len(v.Scopes) > 0:
		return fmt.Errorf("the access token lacks %s: add it in Polar's settings and run this again, or set the endpoint up there",
			strings.Join(v.Scopes, " and "))
	case !v.Check.OK && v.Check.Problem != string(gateway.CheckNoSecret):
		return fmt.Errorf("webhooks to %s do not arrive: %s", v.URL, v.Check.Says)
	}
	return nil
}
