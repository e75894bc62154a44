#!/usr/bin/env bash
# Runs Caddyfile.example on this machine, with a Polar in a box in place of
# Polar, and plays a customer with curl: asks without a token, with one, sends a
# signed webhook as Polar would, and asks again. Nothing is left of it.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
user=${1:-ada}
url=http://localhost:8080

go build -o "$work/" ./cmd/caddy ./cmd/polar-box
"$work/polar-box" --product Pro=1000/month >"$work/box" &
until grep -qs '^PRODUCT=' "$work/box"; do sleep 0.1; done
set -a # what follows is for Caddy's environment
. "$work/box"
POLAR_PRO_PRODUCT=$PRODUCT
POLAR_WEBHOOK_SECRET=a-webhook-secret-for-trying-things
JWT_SECRET=a-jwt-secret-of-at-least-32-bytes-for-trying
XDG_DATA_HOME=$work/data XDG_CONFIG_HOME=$work/config
set +a
"$work/caddy" run --config Caddyfile.example 2>"$work/log" &
curl -sS --retry 50 --retry-connrefused --retry-delay 1 -o /dev/null "$url/" 2>/dev/null || { cat "$work/log"; exit 1; }

base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
hmac() { openssl dgst -sha256 -hmac "$1" -binary; }
ask() { printf '%s\n' "→ $1"; curl -sS -w '  HTTP %{http_code}\n\n' "${@:2}" "$url/report"; }

# A token as the app would issue it: who, and until when.
claims=$(printf '{"sub":"%s","exp":%d}' "$user" $(($(date +%s) + 3600)))
token=$(printf '{"alg":"HS256","typ":"JWT"}' | base64url).$(printf %s "$claims" | base64url)
token=$token.$(printf %s "$token" | hmac "$JWT_SECRET" | base64url)

ask 'without a token' -H 'Accept: application/json'
ask "as $user, who has paid nothing" -H "Authorization: Bearer $token"

# A purchase as Polar would tell it, shortened to what decides.
now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
end=$(date -u -d '+30 days' +%Y-%m-%dT%H:%M:%SZ 2>/dev/null || date -u -v+30d +%Y-%m-%dT%H:%M:%SZ)
body=$(cat <<JSON
{"type":"subscription.active","timestamp":"$now","data":{
 "id":"sub_$user","created_at":"$now","modified_at":"$now","status":"active",
 "current_period_start":"$now","current_period_end":"$end","cancel_at_period_end":false,
 "customer_id":"cus_$user","product_id":"$POLAR_PRO_PRODUCT",
 "customer":{"id":"cus_$user","external_id":"$user"}}}
JSON
)
id=evt_$(date +%s)
sent=$(date +%s)
signature=$(printf '%s.%s.%s' "$id" "$sent" "$body" | hmac "$POLAR_WEBHOOK_SECRET" | openssl base64 -A)
printf '→ the webhook of a purchase\n'
curl -sS -w '  HTTP %{http_code}\n\n' "$url/auth/polar/webhook" -H 'Content-Type: application/json' \
	-H "webhook-id: $id" -H "webhook-timestamp: $sent" -H "webhook-signature: v1,$signature" --data-binary "$body"

ask "as $user, who has paid" -H "Authorization: Bearer $token"
