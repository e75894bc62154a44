package caddypolar

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

// subcommands make those of `caddy polar`.
var subcommands = []func() *cobra.Command{
	demoCommand,
	triggerCommand,
	statusCommand,
	doctorCommand,
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
	backupCommand,
	restoreCommand,
	migrateCommand,
	exportCommand,
	revenueCommand,
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
			refuseUnknown(cmd)
		},
	})
}

// refuseUnknown makes a command that has others below it say so when a word is none of
// them, whatever flags come with it.
func refuseUnknown(cmd *cobra.Command) {
	cmd.FParseErrWhitelist.UnknownFlags = true
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		message := fmt.Sprintf("%s has no command %q: ", cmd.CommandPath(), args[0])
		cmd.SuggestionsMinimumDistance = 2
		if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
			return errors.New(message + "did you mean " + like[0] + "?")
		}
		return errors.New(message + "see " + cmd.CommandPath() + " --help")
	}
}
