// Package browsertest walks a real browser through `caddy polar demo`, and along a
// gallery of all pages: what is asserted is what a visitor reads, and that everybody
// can. It is a module of its own, so that the gateway's does not depend on a browser's
// driver.
//
// It needs Chromium, found as CHROMIUM, /usr/bin/chromium, or by its name, and axe-core,
// which npm fetches unless AXE names its axe.min.js. Nothing else tells Go's test cache
// of changes of the gateway, so run it with
//
//	go test -count=1 ./...
//
// The pictures in the folder pictures are made by
//
//	PICTURES=$PWD/pictures go test -count=1 -run 'TestGallery$|TestFromRefused' ./...
package browsertest
