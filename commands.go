package caddypolar

import (
	"github.com/spf13/cobra"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

// subcommands make those of `caddy polar`.
var subcommands = []func() *cobra.Command{
	demoCommand,
	triggerCommand,
	statusCommand,
	usersCommand,
	showCommand,
	explainCommand,
	passCommand,
	revokePassCommand,
	linkCommand,
	forgetCommand,
	syncCommand,
	webhookCommand,
	notifyCommand,
}

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  appName,
		Usage: "<command>",
		Short: "Tries and tends the Polar entitlement gateway",
		CobraFunc: func(cmd *cobra.Command) {
			for _, subcommand := range subcommands {
				cmd.AddCommand(subcommand())
			}
		},
	})
}
