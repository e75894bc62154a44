// Command caddy is Caddy with its standard modules and the Polar entitlement
// gateway: the same program that xcaddy builds.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddy-polar/caddy-polar"
	_ "github.com/caddy-polar/caddy-polar/cache/postgres" // store postgres
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

func main() {
	caddycmd.Main()
}
