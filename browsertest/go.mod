module github.com/caddy-polar/caddy-polar/browsertest

go 1.26.0

require (
	github.com/chromedp/cdproto v0.159.0
	github.com/chromedp/chromedp v0.23.0
)

require (
	github.com/go-playground/locales v0.14.2 // indirect
	golang.org/x/text v0.42.0 // indirect
)

require (
	github.com/caddy-polar/caddy-polar v0.0.0
	github.com/go-json-experiment/json v0.0.0-20260213210345-44df1a37e875 // indirect
)

replace github.com/caddy-polar/caddy-polar => ../
