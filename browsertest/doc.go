// Package browsertest walks a real browser through `caddy polar demo`: what is
// asserted is what a visitor reads. It is a module of its own, so that the
// gateway's does not depend on a browser's driver.
//
// It needs Chromium, found as CHROMIUM, /usr/bin/chromium, or by its name.
// Nothing else tells Go's test cache of changes of the gateway, so run it with
//
//	go test -count=1 ./...
package browsertest
