package caddypolar

import (
	"io"
	"net/http"

	"github.com/spf13/cobra"
)

func notifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "notify",
		Short: "What the app is told of changes",
	}
	cmd.AddCommand(notifyResendCommand())
	refuseUnknown(cmd)
	return cmd
}

func notifyResendCommand() *cobra.Command {
	var o operator
	return o.flags(&cobra.Command{
		Use:   "resend",
		Short: "Tries at once to send what has not arrived at the app",
		Long: `
Messages that wait are tried now, and those that were given up after a day wait
once more. Says how many that are; caddy polar status tells what becomes of them.`,
		Example: `  caddy polar notify resend`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var v resentView
			if err := o.ask(cmd.Context(), http.MethodPost, []string{"notify", "resend"}, nil, nil, &v); err != nil {
				return err
			}
			return o.tell(cmd, v, func(w io.Writer) { row(w, "to be sent now", v.Messages) })
		},
	})
}
