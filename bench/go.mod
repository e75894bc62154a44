module github.com/caddy-polar/caddy-polar/bench

go 1.26.0

require (
	github.com/caddy-polar/caddy-polar v0.0.0
	github.com/golang-jwt/jwt/v5 v5.3.1
)

require (
	github.com/cenkalti/backoff/v5 v5.0.3 // indirect
	go.uber.org/multierr v1.11.0 // indirect
	go.uber.org/zap v1.28.0 // indirect
	golang.org/x/time v0.16.0 // indirect
)

replace github.com/caddy-polar/caddy-polar => ..
