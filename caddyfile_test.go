package caddypolar

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// in is a Caddyfile with some lines in the polar block and in the site. The
// block's first line is line 3, the site's first is 2 lines after its end.
func in(block, site string) string {
	return "{\n\tpolar {\n" + block + "\n\t}\n}\nlocalhost {\n" + site + "\n}\n"
}

const goodBlock = "jwt secret {env.JWT}\nplan pro p1"

func TestCaddyfileMistakes(t *testing.T) {
	for _, test := range []struct {
		name, config string
		want         []string // what the error says, the place first
	}{
		{"unknown subdirective", in("acess_token x", ""), []string{"Caddyfile:3", `"acess_token"`, "access_token"}},
		{"login_url without an address", in("login_url", ""), []string{"Caddyfile:3", "login_url takes exactly one"}},
		{"login_url elsewhere", in("login_url login", ""), []string{"Caddyfile:3", `login_url: "login" is no address`, "/login?next={return_to}"}},
		{"login_url of another scheme", in("login_url javascript:alert(1)", ""), []string{"login_url", "is no address"}},
		{"login_url of no scheme", in("login_url //evil.example/", ""), []string{"login_url", "is no address"}},
		{"login_url with a backslash", in("login_url /\\evil.example", ""), []string{"login_url", "is no address"}},
		{"upgrade_url with a password", in("upgrade_url https://a:b@example.com/", ""), []string{`upgrade_url`, "is no address"}},
		{"two login_urls", in("login_url /a\nlogin_url /b", ""), []string{"Caddyfile:4", "login_url is given twice"}},
		{"page without a block", in("page x", ""), []string{"Caddyfile:3", `unexpected "x"`, "page takes a block"}},
		{"page with an unknown word", in("page {\ncolour 123\n}", ""), []string{"Caddyfile:4", `"colour"`, "color, logo, name, texts"}},
		{"a colour that is a comment", in("page {\ncolor #1f4fd8\n}", ""), []string{"Caddyfile:4", "without #"}},
		{"a colour that is none", in("page {\ncolor red\n}", ""), []string{"Caddyfile:4", `"red"`, "1f4fd8"}},
		{"a name of two words", in("page {\nname Field Notes\n}", ""), []string{"Caddyfile:4", "name takes exactly one"}},
		{"session without an address", in("session {\ncookies s\n}", ""), []string{"Caddyfile:3", "session takes the address"}},
		{"session with two addresses", in("session http://a http://b {\ncookies s\n}", ""), []string{"Caddyfile:3", "session takes the address"}},
		{"session without cookies", in("session http://localhost/me", ""), []string{"Caddyfile:3", "cookies better-auth"}},
		{"session without a block's cookies", in("session http://localhost/me {\nuser_path id\n}", ""), []string{"Caddyfile:5", "cookies better-auth"}},
		{"session with all cookies", in("session http://localhost/me {\ncookies *\n}", ""), []string{"Caddyfile:5", `"*"`, "no name of a cookie"}},
		{"session relative", in("session /api/me {\ncookies s\n}", ""), []string{"Caddyfile:5", "must be absolute"}},
		{"session with a password", in("session http://u:p@localhost/me {\ncookies s\n}", ""), []string{"Caddyfile:5", "neither a user"}},
		{"session unknown word", in("session http://localhost/me {\ncookie s\n}", ""), []string{"Caddyfile:4", `"cookie"`, "cookies"}},
		{"session bad cache", in("session http://localhost/me {\ncookies s\ncache long\n}", ""), []string{"Caddyfile:5", `"long" is not a duration`}},
		{"session no cache", in("session http://localhost/me {\ncookies s\ncache 0s\n}", ""), []string{"Caddyfile:6", "cache: from 1s to 10m"}},
		{"session long time-out", in("session http://localhost/me {\ncookies s\ntimeout 1m\n}", ""), []string{"Caddyfile:6", "timeout: from 50ms to 10s"}},
		{"session bad path", in("session http://localhost/me {\ncookies s\nuser_path user.\n}", ""), []string{"Caddyfile:6", `"user."`, "empty step"}},
		{"session customer_path of nothing", in("session http://localhost/me {\ncookies s\ncustomer_path\n}", ""), []string{"Caddyfile:5", "customer_path takes one or more"}},
		{"session bad customer_path", in("session http://localhost/me {\ncookies s\ncustomer_path user.id session..org\n}", ""), []string{"Caddyfile:6", `"session..org"`, "empty step"}},
		{"session bad manage_path", in("session http://localhost/me {\ncookies s\nmanage_path .role owner\n}", ""), []string{"Caddyfile:6", `".role"`, "empty step"}},
		{"session manage_path users write", in("session http://localhost/me {\ncookies s\nmanage_path user.user_metadata.role owner\n}", ""), []string{"Caddyfile:6", "users can write this"}},
		{"session manage_path without a value", in("session http://localhost/me {\ncookies s\nmanage_path role\n}", ""), []string{"Caddyfile:5", "manage_path takes a path and one or more values"}},
		{"customer_claim of nothing", in("jwt {\ncustomer_claim\n}", ""), []string{"Caddyfile:4", "customer_claim takes one or more"}},
		{"customer_claim empty", in("jwt {\ncustomer_claim org_id \"\"\n}", ""), []string{"Caddyfile:4", "none of them empty"}},
		{"customer_claim twice", in("jwt {\ncustomer_claim org_id\ncustomer_claim sub\n}", ""), []string{"Caddyfile:5", "customer_claim is given twice"}},
		{"customer_claim with a block", in("jwt {\ncustomer_claim org_id {\nx\n}\n}", ""), []string{"Caddyfile:5", "customer_claim takes no block"}},
		{"manage_claim of nothing", in("jwt {\nmanage_claim\n}", ""), []string{"Caddyfile:4", "manage_claim takes a path and one or more values"}},
		{"manage_claim without a value", in("jwt {\nmanage_claim org_role\n}", ""), []string{"Caddyfile:4", "manage_claim takes a path and one or more values"}},
		{"manage_claim of an empty value", in("jwt {\nmanage_claim org_role \"\"\n}", ""), []string{"Caddyfile:4", "none of them empty"}},
		{"manage_claim twice", in("jwt {\nmanage_claim org_role a\nmanage_claim org_role b\n}", ""), []string{"Caddyfile:5", "manage_claim is given twice"}},
		{"manage_claim with a block", in("jwt {\nmanage_claim org_role a {\nx\n}\n}", ""), []string{"manage_claim takes no block"}},
		{"session path twice", in("session http://localhost/me {\nuser_path a\nuser_path b\n}", ""), []string{"Caddyfile:5", "given twice"}},
		{"session twice", in("session http://a {\ncookies s\n}\nsession http://b {\ncookies s\n}", ""), []string{"Caddyfile:6", "session is given twice"}},
		{"sync neither off nor a block", in("sync on", ""), []string{"Caddyfile:3", `unexpected "on"`}},
		{"sync off with a block", in("sync off {\nevery 1h\n}", ""), []string{"Caddyfile:4", "takes no block"}},
		{"sync with an unknown word", in("sync {\nsometimes 1h\n}", ""), []string{"Caddyfile:4", `"sometimes"`}},
		{"sync too often", in("sync {\nevery 5s\n}", ""), []string{"Caddyfile:5", "at least 1m"}},
		{"sync budget without a unit", in("sync {\nbudget 120\n}", ""), []string{"Caddyfile:4", "120/m"}},
		{"sync budget of nothing", in("sync {\nbudget 0/m\n}", ""), []string{"Caddyfile:4", `"0/m"`}},
		{"sync budget over Polar's", in("sync {\nbudget 501/m\n}", ""), []string{"500/m"}},
		{"memory of nothing", in("memory 0", ""), []string{"Caddyfile:3", `"0"`, "from 100"}},
		{"memory too small", in("memory 99", ""), []string{`"99"`}},
		{"memory too large", in("memory 1000000001", ""), []string{"to 1000000000"}},
		{"memory in words", in("memory much", ""), []string{`"much"`}},
		{"memory twice", in("memory 100\nmemory 200", ""), []string{"memory is given twice"}},
		{"notify without a secret", in("notify http://localhost:3000/x", ""), []string{"Caddyfile:3", "notify", "one secret"}},
		{"notify with three secrets", in("notify http://localhost:3000/x a b c", ""), []string{"Caddyfile:3", "notify", "or two"}},
		{"notify nowhere", in("notify localhost:3000 a", ""), []string{"Caddyfile:3", "notify", "http://localhost"}},
		{"notify with a password", in("notify http://me:hunter2@localhost:3000 a", ""), []string{"Caddyfile:3", "notify", "name and password"}},
		{"notify twice", in("notify http://localhost:3000/x a\nnotify http://localhost:3000/x a", ""), []string{"Caddyfile:4", "notify", "twice"}},
		{"audit of nothing", in("audit", ""), []string{"Caddyfile:3", "audit"}},
		{"audit too short", in("audit 1m", ""), []string{"Caddyfile:3", "audit", "30d"}},
		{"audit of no time", in("audit month", ""), []string{"Caddyfile:3", "audit", `"month"`}},
		{"audit of zero", in("audit 0", ""), []string{"Caddyfile:3", "audit", "off"}},
		{"assertion without a block", in("assertion", ""), []string{"Caddyfile:3", "assertion: it needs an audience", "audience <name of the app>"}},
		{"assertion in one line", in("assertion app", ""), []string{"Caddyfile:3", `unexpected "app"`, "assertion takes a block"}},
		{"assertion for nobody", in("assertion {\nkey auto\n}", ""), []string{"Caddyfile:5", "it needs an audience"}},
		{"assertion for two", in("assertion {\naudience a b\n}", ""), []string{"Caddyfile:4", "audience takes exactly one"}},
		{"assertion with an unknown word", in("assertion {\naudiense a\n}", ""), []string{"Caddyfile:4", `"audiense"`, "audience, issuer, key"}},
		{"assertion without a key", in("assertion {\naudience a\nkey\n}", ""), []string{"Caddyfile:5", "key takes one or more"}},
		{"assertion of both kinds of keys", in("assertion {\naudience a\nkey a.pem\nkey auto\n}", ""), []string{"Caddyfile:7", "key auto stands alone"}},
		{"assertion of many keys", in("assertion {\naudience a\nkey a b c d e\n}", ""), []string{"Caddyfile:6", "5 keys"}},
		{"assertion with a key in it", in("assertion {\naudience a\nkey \"-----BEGIN PRIVATE KEY-----\"\n}", ""), []string{"Caddyfile:6", "name its file"}},
		{"assertion twice", in("assertion {\naudience a\n}\nassertion {\naudience a\n}", ""), []string{"Caddyfile:6", "given twice"}},
		{"link by what is no word", in("link phone", ""), []string{"Caddyfile:3", "link takes one of email"}},
		{"link by nothing", in("link", ""), []string{"Caddyfile:3", "link takes one of email"}},
		{"link by two", in("link email email", ""), []string{"Caddyfile:3", "link takes one of email"}},
		{"link twice", in("link email\nlink email", ""), []string{"Caddyfile:4", "link is given twice"}},
		{"link with a block", in("link email {\nx\n}", ""), []string{"link takes no block"}},
		{"checkout without a block", in("checkout on", ""), []string{"Caddyfile:3", `unexpected "on"`}},
		{"checkout with an unknown word", in("checkout {\ndiscounts on\n}", ""), []string{"Caddyfile:4", `"discounts"`, "multiple_subscriptions"}},
		{"checkout neither on nor off", in("checkout {\nmultiple_subscriptions yes\n}", ""), []string{"Caddyfile:4", "on, off"}},
		{"checkout said twice", in("checkout {\nemail_from_body on\nemail_from_body on\n}", ""), []string{"Caddyfile:5", "given twice"}},
		{"two checkouts", in("checkout {\n}\ncheckout {\n}", ""), []string{"Caddyfile:5", "given twice"}},
		{"user of a header", in("user {http.request.header.X-User}", ""), []string{"Caddyfile:3", "clients can forge", "{http.auth.user.id}"}},
		{"user of a header, short", in("user {header.X-User}", ""), []string{"Caddyfile:3", "clients can forge"}},
		{"user of a cookie", in("user {cookie.user}", ""), []string{"Caddyfile:3", "clients can forge"}},
		{"user of the query", in("user {http.request.uri.query.user}", ""), []string{"Caddyfile:3", "clients can forge"}},
		{"user of a variable", in("user {http.vars.user}", ""), []string{"Caddyfile:3", "clients can forge"}},
		{"user within text", in(`user "u-{http.request.header.X}"`, ""), []string{"Caddyfile:3", "clients can forge"}},
		{"user beside a header", in(`user "{http.auth.user.id}{http.request.header.X}"`, ""), []string{"Caddyfile:3", "clients can forge"}},
		{"user nested", in(`user "{http.auth.user.{http.request.header.X}}"`, ""), []string{"Caddyfile:3", "clients can forge"}},
		{"user whom nobody vouched for", in("user {http.auth.candidate.id}", ""), []string{"Caddyfile:3", "takes one placeholder"}},
		{"user with text", in("user x-{http.auth.user.id}", ""), []string{"Caddyfile:3", "takes one placeholder"}},
		{"user for all", in("user {env.USER}", ""), []string{"Caddyfile:3", "takes one placeholder"}},
		{"user of our own", in("user {http.polar.user}", ""), []string{"Caddyfile:3", "takes one placeholder"}},
		{"user constant", in("user ada", ""), []string{"Caddyfile:3", "takes one placeholder"}},
		{"user with two", in("user {http.auth.user.id} {http.auth.user.email}", ""), []string{"Caddyfile:3", "exactly one argument"}},
		{"user twice", in("user {http.auth.user.id}\nuser {http.auth.user.id}", ""), []string{"Caddyfile:4", "given twice"}},
		{"user beside jwt", in("jwt secret x\nuser {http.auth.user.id}", ""), []string{"Caddyfile:4", "cannot stand beside"}},
		{"jwt beside user", in("user {http.auth.user.id}\njwt secret x", ""), []string{"Caddyfile:4", "cannot stand beside"}},
		{"session beside user", in("user {http.auth.user.id}\nsession http://localhost/me {\ncookies s\n}", ""), []string{"Caddyfile:6", "cannot stand beside"}},
		{"repeated scalar", in("server sandbox\nserver production", ""), []string{"Caddyfile:4", "server is given twice"}},
		{"repeated token", in("access_token a\naccess_token b", ""), []string{"Caddyfile:4", "access_token is given twice"}},
		{"leftover argument", in("server sandbox production", ""), []string{"Caddyfile:3", "server takes exactly one argument"}},
		{"missing argument", in("access_token", ""), []string{"Caddyfile:3", "access_token takes exactly one argument"}},
		{"empty argument", in(`access_token ""`, ""), []string{"Caddyfile:3", "not empty"}},
		{"empty secret in a list", in(`webhook_secret a ""`, ""), []string{"Caddyfile:3", "none of them empty"}},
		{"no secret in a list", in(`webhook_secret`, ""), []string{"Caddyfile:3", "one or more arguments"}},
		{"block where none belongs", in("server sandbox {\nx\n}", ""), []string{"server takes no block"}},
		{"second block of a name", "{\npolar {\nplan a b\n}\npolar {\nplan a b\n}\n}\n", []string{"Caddyfile:5", `"default"`, "two polar blocks"}},
		{"two names", "{\npolar a b {\n}\n}\n", []string{"Caddyfile:2", `unexpected "b"`}},
		{"bad gateway name", "{\npolar A.b {\n}\n}\n", []string{"Caddyfile:2", `"A.b"`}},

		{"jwt nothing", in("jwt", ""), []string{"Caddyfile:3", "exactly one of secret, public_key and jwks"}},
		{"jwt unknown kind", in("jwt sekret x", ""), []string{"Caddyfile:3", `unexpected "sekret"`}},
		{"jwt jwks without a value", in("jwt jwks", ""), []string{"Caddyfile:3", "jwks takes exactly one argument"}},
		{"jwt jwks over http", in("jwt jwks http://id.example/jwks", ""), []string{"Caddyfile:3", "jwks", "https"}},
		{"jwt jwks without a scheme", in("jwt {\njwks id.example/jwks\n}", ""), []string{"Caddyfile:4", "jwks", "https://host/path"}},
		{"jwt jwks with a password", in("jwt {\njwks https://u:p@id.example/jwks\n}", ""), []string{"Caddyfile:4", "jwks", "password"}},
		{"jwt jwks twice", in("jwt {\njwks https://a.example\njwks https://b.example\n}", ""), []string{"Caddyfile:5", "jwks is given twice"}},
		{"jwt jwks and a secret", in("jwt {\njwks https://a.example\nsecret a\n}", ""), []string{"exactly one of secret, public_key and jwks"}},
		{"jwt max_stale without jwks", in("jwt {\nsecret a\nmax_stale 1h\n}", ""), []string{"max_stale goes with jwks"}},
		{"jwt max_stale no duration", in("jwt {\njwks https://a.example\nmax_stale never\n}", ""), []string{"Caddyfile:5", `"never" is not a duration`}},
		{"jwt max_stale too short", in("jwt {\njwks https://a.example\nmax_stale 1m\n}", ""), []string{"Caddyfile:5", "max_stale", "at least 5m"}},
		{"jwt two keys", in("jwt {\nsecret a\npublic_key b\n}", ""), []string{"exactly one of secret, public_key and jwks"}},
		{"jwt no key", in("jwt {\nissuer a\n}", ""), []string{"exactly one of secret, public_key and jwks"}},
		{"jwt secret twice", in("jwt {\nsecret a\nsecret b\n}", ""), []string{"Caddyfile:5", "secret is given twice"}},
		{"jwt one line with two values", in("jwt secret a b", ""), []string{"secret takes exactly one argument"}},
		{"jwt bad leeway", in("jwt {\nsecret a\nleeway soon\n}", ""), []string{"Caddyfile:5", `"soon" is not a duration`}},
		{"jwt negative leeway", in("jwt {\nsecret a\nleeway -5s\n}", ""), []string{"Caddyfile:5", "is not a duration"}},
		{"jwt from nowhere", in("jwt {\nsecret a\nfrom query token\n}", ""), []string{"Caddyfile:5", `unexpected "query"`}},
		{"jwt from half", in("jwt {\nsecret a\nfrom cookie\n}", ""), []string{"Caddyfile:5", "from takes header"}},
		{"jwt flag with argument", in("jwt {\nsecret a\nstrip_token yes\n}", ""), []string{"Caddyfile:5", "strip_token takes no argument"}},

		{"plan without a name", in("plan", ""), []string{"Caddyfile:3", "plan takes a name"}},
		{"plan any", in("plan any p1", ""), []string{"Caddyfile:3", `"any"`}},
		{"plan in capitals", in("plan Pro p1", ""), []string{"Caddyfile:3", `"Pro"`}},
		{"plan without products", in("plan pro", ""), []string{"Caddyfile:3", "at least one product"}},
		{"plan with an empty product", in(`plan pro ""`, ""), []string{"Caddyfile:3", "none may be empty"}},
		{"plan twice", in("plan pro a\nplan pro b", ""), []string{"Caddyfile:4", "two plans named pro"}},
		{"plan with an unknown word", in("plan pro {\nproduct a\n}", ""), []string{"Caddyfile:4", `"product"`, "products"}},
		{"plan with half a seat", in("plan pro a {\nbuyer_seat maybe\n}", ""), []string{"Caddyfile:4", "on, off"}},
		{"plan with grace twice", in("plan pro a {\ngrace {\n}\ngrace {\n}\n}", ""), []string{"grace is given twice"}},

		{"grace in one line", in("grace 7d", ""), []string{"Caddyfile:3", `unexpected "7d"`}},
		{"grace unknown", in("grace {\nlate 7d\n}", ""), []string{"Caddyfile:4", `"late"`, "past_due"}},
		{"grace past_due no duration", in("grace {\npast_due never\n}", ""), []string{"Caddyfile:4", `"never"`, "polar", "off"}},
		{"grace past_due negative", in("grace {\npast_due -7d\n}", ""), []string{"Caddyfile:4", `"-7d"`}},
		{"grace renewal no duration", in("grace {\nrenewal polar\n}", ""), []string{"Caddyfile:4", `"polar" is not a duration`}},
		{"on_unavailable", in("on_unavailable open", ""), []string{"Caddyfile:3", "refuse, allow"}},
		{"server", in("server staging", ""), []string{"Caddyfile:3", "server", `"staging"`}},
		{"server over http", in("server http://polar.example", ""), []string{"Caddyfile:3", "server", "https"}},
		{"api_version", in("api_version v1", ""), []string{"Caddyfile:3", "api_version", `"v1"`, "YYYY-MM"}},
		{"api_version month", in("api_version 2026-13", ""), []string{"Caddyfile:3", "api_version"}},
		{"headers", in("headers X-Polar", ""), []string{"Caddyfile:3", "headers", `"X-Polar"`, "end in -"}},
		{"return_to", in("return_to https://a.example/", ""), []string{"Caddyfile:3", "return_to", "is not a host"}},
		{"store without a module", in("store", ""), []string{"Caddyfile:3", "store takes a module"}},
		{"store unknown", in("store postgres {\n}", ""), []string{"Caddyfile:3", "polar.stores.postgres"}},
		{"store unknown word", in("store bolt {\nfile x\n}", ""), []string{"Caddyfile:4", `"file"`}},
		{"store path twice", in("store bolt {\npath x\npath y\n}", ""), []string{"Caddyfile:5", "path is given twice"}},
		{"store leftover", in("store bolt x", ""), []string{"Caddyfile:3"}},

		{"headers without a prefix", in("headers", ""), []string{"Caddyfile:3", "headers", "one or more"}},
		{"a header that is none", in("headers X-Polar- User Name", ""), []string{"Caddyfile:3", `"Name"`, "User, Plan, Plans"}},
		{"a header twice", in("headers X-Polar- User user", ""), []string{"Caddyfile:3", "user", "twice"}},
		{"headers that are others'", in("headers X-", ""), []string{"Caddyfile:3", "X-Forwarded-For"}},
		{"polar without its gateway", "{\npolar other {\n}\n}\nlocalhost {\npolar\n}\n", []string{"Caddyfile:6", `"default"`}},
		{"polar without a global block", "localhost {\npolar\n}\n", []string{"Caddyfile:2", "global options"}},
		{"polar_require without a global block", "localhost {\npolar_require pro\n}\n", []string{"Caddyfile:2", "global options"}},
		{"polar with an unknown gateway", in(goodBlock, "polar other"), []string{"Caddyfile:8", `"other"`}},
		{"polar with a path matcher", in(goodBlock, "polar /x"), []string{"Caddyfile:8", "takes no matcher"}},
		{"polar with a named matcher", in(goodBlock, "@a path /x\npolar @a"), []string{"Caddyfile:9", "takes no matcher"}},
		{"polar with two gateways", in(goodBlock, "polar default other"), []string{"Caddyfile:8", `unexpected "other"`}},
		{"polar with an unknown word", in(goodBlock, "polar {\nprefix /x\n}"), []string{"Caddyfile:9", `"prefix"`}},
		{"polar with a bad path", in(goodBlock, "polar {\npath auth/\n}"), []string{`"auth/"`}},
		{"polar with a wild path", in(goodBlock, "polar {\npath /auth/*\n}"), []string{`"/auth/*"`}},

		{"plan that no gateway has", in(goodBlock, "polar_require prp"), []string{"Caddyfile:8", `"prp"`}},
		{"ambiguous path", in(goodBlock, "polar_require /pro* pro"), []string{"Caddyfile:8", `"/pro*"`, "/pro/*"}},
		{"path with a wildcard inside", in(goodBlock, "polar_require /a/*/b pro"), []string{"Caddyfile:8", `"/a/*/b"`}},
		{"ambiguous public path", in(goodBlock, "polar_require pro {\npublic /a*\n}"), []string{`"/a*"`}},
		{"public without a slash", in(goodBlock, "polar_require pro {\npublic a\n}"), []string{`"a"`}},
		{"star", in(goodBlock, "polar_require * pro"), []string{"Caddyfile:8", `"*"`}},
		{"bad plan name", in(goodBlock, "polar_require Pro"), []string{"Caddyfile:8", `"Pro"`}},
		{"unknown matcher", in(goodBlock, "polar_require @nope pro"), []string{"Caddyfile:8", "@nope"}},
		{"refuse redirect to nothing", in(goodBlock, "polar_require pro {\nrefuse redirect login\n}"), []string{"Caddyfile:10", `"login"`}},
		{"matcher in the wrong place", in(goodBlock, "@a path /x\npolar_require pro @a"), []string{"Caddyfile:9", `"@a"`}},
		{"refuse in an unknown way", in(goodBlock, "polar_require pro {\nrefuse politely\n}"), []string{"Caddyfile:9", "auto, json, page, error"}},
		{"refuse redirect nowhere", in(goodBlock, "polar_require pro {\nrefuse redirect\n}"), []string{"Caddyfile:9", "redirect <url>"}},
		{"dry_run with an argument", in(goodBlock, "polar_require pro {\ndry_run yes\n}"), []string{"Caddyfile:9", "dry_run takes no argument"}},
		{"recheck too short", in(goodBlock, "polar_require pro {\nrecheck 500ms\n}"), []string{"Caddyfile:9", "recheck", "at least 1s"}},
		{"recheck zero", in(goodBlock, "polar_require pro {\nrecheck 0s\n}"), []string{"Caddyfile:9", "recheck", "at least 1s"}},
		{"recheck off", in(goodBlock, "polar_require pro {\nrecheck off\n}"), []string{"Caddyfile:9", "recheck", `"off"`}},
		{"recheck twice", in(goodBlock, "polar_require pro {\nrecheck 5s\nrecheck 5s\n}"), []string{"Caddyfile:10", "given twice"}},
		{"preflight", in(goodBlock, "polar_require pro {\npreflight maybe\n}"), []string{"Caddyfile:9", "pass, refuse"}},
		{"gate's gateway unknown", in(goodBlock, "polar_require pro {\ngateway other\n}"), []string{`"other"`}},
		{"refuse twice", in(goodBlock, "polar_require pro {\nrefuse json\nrefuse json\n}"), []string{"Caddyfile:10", "given twice"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := adapt(test.config)
			if err == nil {
				t.Fatalf("was taken:\n%s", test.config)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("does not say %q: %v", want, err)
				}
			}
		})
	}
}

// TestLoadMistakes are those that only loading can see.
func TestLoadMistakes(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("EMPTY", "")
	t.Setenv("SHORT", "too-short")
	t.Setenv("SHORT_SECRET", "short-and-secret")
	t.Setenv("CUSTOMER_TOKEN", "polar_cst_fake")
	t.Setenv("MEMBER_TOKEN", "polar_mst_fake")
	t.Setenv("LISTEN", "47eaa0992cb6416d86dc283cf0480ff9")
	t.Setenv("LONG", strings.Repeat("k", 32))
	t.Setenv("KEY", newKeyPEM(t))
	const plan = "\nplan pro p1\n"
	const jwt = "\njwt secret {env.LONG}\n"
	for _, test := range []struct {
		name, block string
		want        []string
	}{
		{"empty token", "access_token {env.EMPTY}" + jwt + plan, []string{"gateway default: access_token: {env.EMPTY} is empty"}},
		{"unset webhook secret", "webhook_secret {env.NOT_SET_AT_ALL}" + jwt + plan, []string{"gateway default: webhook_secret: {env.NOT_SET_AT_ALL} is empty"}},
		{"missing file", "webhook_secret {file." + dir + "/none}" + jwt + plan, []string{"webhook_secret", "/none} is empty or cannot be read"}},
		{"empty jwt secret", "jwt secret {env.EMPTY}" + plan, []string{"gateway default: jwt: secret: {env.EMPTY} is empty"}},
		{"short jwt secret", "jwt secret {env.SHORT_SECRET}" + plan, []string{"gateway default: jwt: {env.SHORT_SECRET}", "32"}},
		{"bad PEM", "jwt public_key " + file("bad.pem", "no pem") + plan, []string{"gateway default: jwt", "PEM"}},
		{"jwks in one line", "jwt jwks https://id.example/jwks" + plan, []string{"gateway default: jwt", "jwt { jwks <url> issuer <iss> audience <aud> }", "any waives one"}},
		{"jwks without an audience", "jwt {\njwks https://id.example/jwks\nissuer a\n}" + plan, []string{"gateway default: jwt", "audience <aud>"}},
		{"jwks without an issuer", "jwt {\njwks https://id.example/jwks\naudience a\n}" + plan, []string{"gateway default: jwt", "issuer <iss>"}},
		{"empty jwks", "jwt {\njwks {env.EMPTY}\nissuer a\naudience b\n}" + plan, []string{"gateway default: jwt: jwks: {env.EMPTY} is empty"}},
		{"jwks of the environment", "jwt {\njwks {env.SHORT_SECRET}\nissuer a\naudience b\n}" + plan, []string{"gateway default: jwt: jwks: {env.SHORT_SECRET}", "https://host/path"}},
		{"jwks of two issuers", "jwt {\njwks https://a.example\nissuer a\naudience b\n}\njwt {\njwks https://b.example\nissuer b\naudience b\n}" + plan, []string{"user_prefix"}},
		{"jwks with a secret's algorithm", "jwt {\njwks https://a.example\nissuer a\naudience b\nalgorithms HS256\n}" + plan, []string{"HS256"}},
		{"no such PEM", "jwt public_key " + dir + "/none.pem" + plan, []string{"jwt: public_key", "readable file"}},
		{"customer token", "access_token {env.CUSTOMER_TOKEN}" + jwt + plan, []string{"{env.CUSTOMER_TOKEN}", "customer session token", "polar_oat_"}},
		{"member token", "access_token {env.MEMBER_TOKEN}" + jwt + plan, []string{"member session token", "polar_oat_"}},
		{"polar listen in production", "webhook_secret {env.LISTEN}" + jwt + plan, []string{"{env.LISTEN}", "polar listen", "sandbox"}},
		{"empty product", jwt + "plan pro {env.EMPTY}", []string{"gateway default: plan pro: {env.EMPTY} is empty"}},
		{"server of the environment", "server {env.SHORT}" + jwt + plan, []string{"gateway default: server", `"too-short"`}},
		{"token in a header of ours", "jwt {\nsecret {env.LONG}\nfrom header X-Polar-Token\n}" + plan, []string{"gateway default: jwt: from header X-Polar-Token"}},
		{"token in an override", "jwt {\nsecret {env.LONG}\nfrom header X-Original-URL\n}" + plan, []string{"from header X-Original-Url"}},
		{"a prefix inside another", "headers X-Polar-B-" + jwt + plan + "}\npolar other {" + jwt, []string{"gateway default: headers", "other"}},
		{"algorithm none", "jwt {\nsecret {env.LONG}\nalgorithms none\n}" + plan, []string{"jwt", "none"}},
		{"algorithm of another key", "jwt {\nsecret {env.LONG}\nalgorithms RS256\n}" + plan, []string{"jwt", "RS256"}},
		{"issuers without prefixes", "jwt {\nsecret {env.LONG}\nissuer a\n}\njwt {\nsecret {env.LONG}\nissuer b\n}" + plan, []string{"user_prefix"}},
		{"assertion of a public key", "assertion {\naudience a\nkey " + file("public.pem", "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----") + "\n}" + jwt + plan, []string{"gateway default: assertion: key: ", "public.pem: ", "give the private key"}},
		{"assertion of no key", "assertion {\naudience a\nkey {env.SHORT_SECRET}\n}" + jwt + plan, []string{"assertion: key: {env.SHORT_SECRET}: neither auto nor a file"}},
		{"assertion of no file", "assertion {\naudience a\nkey " + dir + "/none.pem\n}" + jwt + plan, []string{"assertion: key: ", "none.pem: neither auto nor a file", "no such file"}},
		{"assertion of one key twice", "assertion {\naudience a\nkey {env.KEY} {env.KEY}\n}" + jwt + plan, []string{"assertion: key: {env.KEY}: it is given twice"}},
		{"assertion for an empty name", "assertion {\naudience {env.EMPTY}\n}" + jwt + plan, []string{"assertion: audience: {env.EMPTY} is empty"}},
		{"assertion by an empty name", "assertion {\naudience a\nissuer {env.EMPTY}\n}" + jwt + plan, []string{"assertion: issuer: {env.EMPTY} is empty"}},
		{"assertion that is not sent", "headers X-Polar- User\nassertion {\naudience a\n}" + jwt + plan, []string{"assertion: headers names which", "add Assertion"}},
		{"assertion sent without a block", "headers X-Polar- User assertion" + jwt + plan, []string{"headers: Assertion goes with an assertion block"}},
		{"leeway", "jwt {\nsecret {env.LONG}\nleeway 1h\n}" + plan, []string{"leeway"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			config, err := adapt(fmt.Sprintf("{\nadmin off\npersist_config off\nstorage file_system %s\npolar {\n%s\n}\n}\n", dir, test.block))
			if err != nil {
				t.Fatal(err)
			}
			err = validate(t, config)
			if err == nil {
				t.Fatal("was taken")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("does not say %q: %v", want, err)
				}
			}
			for _, secret := range []string{"short-and-secret", "polar_cst_fake", "polar_mst_fake", "47eaa0992cb6416d86dc283cf0480ff9", strings.Repeat("k", 32)} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("shows a secret: %v", err)
				}
			}
		})
	}
}

func validate(t *testing.T, config []byte) error {
	t.Helper()
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	cfg := new(caddy.Config)
	if err := json.Unmarshal(config, cfg); err != nil {
		t.Fatal(err)
	}
	return caddy.Validate(cfg)
}

func TestListenSecretInSandbox(t *testing.T) {
	t.Setenv("LISTEN", "47eaa0992cb6416d86dc283cf0480ff9")
	config, err := adapt("{\nadmin off\npolar {\nserver sandbox\nwebhook_secret {env.LISTEN}\n}\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(t, config); err != nil {
		t.Fatal(err)
	}
}

// TestJSON: the JSON of a full Caddyfile has the documented keys, keeps
// placeholders, and loads.
func TestJSON(t *testing.T) {
	for name, content := range map[string]string{"LOGO": "<svg/>", "TEXTS": `{"de": {"account.title": "Dein Konto"}}`} {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv(name, file)
	}
	t.Setenv("LOGIN", "https://id.example.com/")
	t.Setenv("SECRET", strings.Repeat("s", 32))
	t.Setenv("NOTIFY", fakeNotifySecret)
	t.Setenv("NOTIFY_OLD", fakeNotifySecret)
	t.Setenv("SESSION", "http://app:3000/me")
	t.Setenv("KEY", newKeyPEM(t))
	t.Setenv("KEY_BEFORE", newKeyPEM(t))
	config, err := adapt(in(`
access_token {env.SECRET}
webhook_secret {env.SECRET} {env.SECRET}
server sandbox
api_version 2026-10
organization_id org1
store bolt {
	path `+filepath.Join(t.TempDir(), "x.db")+`
}
jwt {
	secret {env.SECRET}
	algorithms HS256
	issuer any
	audience app
	leeway 10s
	from cookie session
	from header X-Token
	user_claim user.id
	customer_claim org.id user.id
	manage_claim org.role owner billing
	email_claim mail
	strip_token
}
session {env.SESSION} {
	cookies authjs.session-token* __Secure-authjs.session-token*
	cookies sid
	user_path account.id
	email_path account.mail
	email_verified_path account.confirmed
	user_prefix app:
	customer_path org.id
	manage_path org.role owner
	cache 1m
	timeout 500ms
}
link email
plan basic p0
plan pro {
	products p1 p2
	benefits b1
	grace {
		past_due polar
		unpaid 1d
	}
}
grace {
	past_due 3d
	trial_past_due off
	renewal 1d
	canceled 0s
}
on_unavailable allow
return_to www.example.com localhost:3000
login_url {env.LOGIN}?next={return_to}
upgrade_url https://example.com/plans?why={reason}
page {
	name "Field Notes"
	logo {env.LOGO}
	color 1d6b52
	texts {env.TEXTS}
}
headers X-Gate- User plan assertion
assertion {
	audience {env.LOGIN}
	issuer https://gate.example
	key {env.KEY}
	key {env.KEY_BEFORE}
}
audit 7d
notify http://localhost:3000/hooks {env.NOTIFY} {env.NOTIFY_OLD}
memory 5000
`, `
@api path /api/*
polar {
	path /billing
}
polar_require @api /api/* pro basic {
	gateway default
	public /api/health
	refuse redirect https://example.com/?to={return_to}
	on_unavailable refuse
	preflight refuse
	recheck 5s
}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"access_token":"{env.SECRET}"`, `"webhook_secret":["{env.SECRET}","{env.SECRET}"]`, `"module":"bolt"`,
		`"from":[{"cookie":"session"},{"header":"X-Token"}]`, `"plans":[{"name":"basic"`, `"past_due":"polar"`,
		`"handler":"polar_require"`, `"path":"/billing"`, `"public":["/api/health"]`, `"refuse":"redirect"`,
		`"customer_claim":["org.id","user.id"],"manage_claim":{"path":"org.role","values":["owner","billing"]}`,
		`"preflight":"refuse"`, `"recheck":5000000000`, `"headers":"X-Gate-"`, `"header_names":["User","plan","assertion"]`,
		`"assertion":{"audience":"{env.LOGIN}","issuer":"https://gate.example","key":["{env.KEY}","{env.KEY_BEFORE}"]}`, `"audit":604800000000000`,
		`"notify":{"url":"http://localhost:3000/hooks","secrets":["{env.NOTIFY}","{env.NOTIFY_OLD}"]}`, `"memory":5000`, `"link":"email"`,
		`"login_url":"{env.LOGIN}?next={return_to}","upgrade_url":"https://example.com/plans?why={reason}"`,
		`"page":{"name":"Field Notes","logo":"{env.LOGO}","color":"1d6b52","texts":"{env.TEXTS}"}`, `"on_unavailable":"allow"`,
		`"session":{"url":"{env.SESSION}","cookies":["authjs.session-token*","__Secure-authjs.session-token*","sid"],` +
			`"user_path":"account.id","email_path":"account.mail","email_verified_path":"account.confirmed",` +
			`"user_prefix":"app:","customer_path":["org.id"],"manage_path":{"path":"org.role","values":["owner"]},"cache":60000000000,"timeout":500000000}`,
	} {
		if !strings.Contains(string(config), want) {
			t.Errorf("no %s in %s", want, config)
		}
	}
	if strings.Contains(string(config), "ssss") {
		t.Error("a secret was resolved while adapting")
	}
	if err := validate(t, config); err != nil {
		t.Error(err)
	}
}

// TestJSONMistakes are those that only JSON can make.
func TestJSONMistakes(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	for config, want := range map[string]string{
		`{"plans":[{"name":"pro","products":[""]}]}`:                                                    "plan pro",
		`{"plans":[{"name":"pro"}]}`:                                                                    "at least one product",
		`{"plans":[{"name":"any","products":["p"]}]}`:                                                   "any",
		`{"plans":[{"name":"a","products":["p"]},{"name":"a","products":["q"]}]}`:                       "two of that name",
		`{"webhook_secret":[""]}`:                                                                       "webhook_secret is empty",
		`{"jwt":[{"secret":"` + strings.Repeat("k", 32) + `","max_stale":1}]}`:                          "max_stale goes with jwks",
		`{"jwt":[{"jwks":"https://a.example","issuer":["a"],"audience":["b"],"max_stale":1}]}`:          "at least 5m",
		`{"jwt":[{"jwks":"http://a.example","issuer":["a"],"audience":["b"]}]}`:                         "https",
		`{"jwt":[{"jwks":"https://a.example","issuer":["a"]}]}`:                                         "audience",
		`{"jwt":[{"secret":"` + strings.Repeat("k", 32) + `","manage_claim":{"path":"a"}}]}`:            "customer_claim or manage_claim",
		`{"jwt":[{"secret":"` + strings.Repeat("k", 32) + `","customer_claim":["user_metadata.org"]}]}`: "users can write",
		`{"session":{"url":"http://localhost","cookies":["s"],"manage_path":{"values":["a"]}}}`:         "customer_claim or manage_claim",
		`{"jwt":[{}]}`:                  "jwt",
		`{"grace":{"past_due":"soon"}}`: "past_due",
		`{"grace":{"renewal":-1}}`:      "renewal",
		`{"memory":7}`:                  "from 100",
		`{"header_names":["Token"]}`:    `"Token" is none of`,
		`{"assertion":{}}`:              "assertion: it needs an audience",
		`{"assertion":{"audience":"a","key":["auto","auto"]}}`: "key auto stands alone",
		`{"assertion":{"audience":"a","key":[""]}}`:            "assertion: key is empty",
		`{"audit":1000}`: "audit",
		`{"notify":{"url":"http://localhost:3000/x"}}`:                              "notify: it needs one secret",
		`{"notify":{"url":"x","secrets":["a"]}}`:                                    "notify: the address must be whole",
		`{"notify":{"url":"http://localhost:3000/x","secrets":["whsec_c2hvcnQ="]}}`: "24 to 64 bytes",
		`{"headers":"X-"}`:                                                    "X-Forwarded-For",
		`{"on_unavailable":"maybe"}`:                                          "on_unavailable",
		`{"link":"phone"}`:                                                    `link: "phone" is not email`,
		`{"store":{"module":"none"}}`:                                         "store",
		`{"user":"{http.request.header.X-User}"}`:                             "clients can forge",
		`{"user":"{http.auth.user.id}x"}`:                                     "takes one placeholder",
		`{"user":"{http.auth.user.id}","jwt":[{"secret":"x"}]}`:               "cannot stand beside",
		`{"user":"{http.auth.user.id}","session":{}}`:                         "cannot stand beside",
		`{"session":{}}`:                                                      "session is empty",
		`{"session":{"url":"{env.NOT_SET_AT_ALL}","cookies":["s"]}}`:          "session: {env.NOT_SET_AT_ALL} is empty",
		`{"session":{"url":"http://localhost"}}`:                              "name the cookies",
		`{"session":{"url":"localhost:3000","cookies":["s"]}}`:                "must be absolute",
		`{"session":{"url":"http://localhost","cookies":["s"],"cache":0}}`:    "cache: from 1s to 10m",
		`{"session":{"url":"http://localhost","cookies":["s"],"timeout":-1}}`: "timeout: from 50ms to 10s",
		`null`: "null",
	} {
		err := validate(t, []byte(`{"admin":{"disabled":true},"apps":{"polar":{"gateways":{"default":`+config+`}}}}`))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "gateway default") {
			t.Errorf("%s: %v, want %q", config, err, want)
		}
	}
}

func TestDirectiveOrder(t *testing.T) {
	config, err := adapt(in(goodBlock, "respond hi\nreverse_proxy localhost:1\nrequest_header X a\npolar_require pro\nbasic_auth {\nbob $2a$14$x\n}\nrewrite /b\nredir /c /d\npolar"))
	if err != nil {
		t.Fatal(err)
	}
	last := -1
	for _, handler := range []string{`"handler":"polar"`, `"Location"`, `"uri":"/b"`, `"http_basic"`, `"handler":"polar_require"`, `"handler":"headers","request"`} {
		at := strings.Index(string(config), handler)
		if at < last || at < 0 {
			t.Errorf("%s is at %d, behind %d: %s", handler, at, last, config)
		}
		last = at
	}
}

// FuzzCaddyfile: whatever stands in the blocks, parsing ends with an answer.
func FuzzCaddyfile(f *testing.F) {
	f.Add("access_token {env.A}\nwebhook_secret a b\njwt secret x\nplan pro p1 {\nbenefits b\n}", "polar_require /a pro {\npublic /b\n}")
	f.Add("grace {\npast_due polar\n}\nstore bolt {\npath x\n}\njwt {\nfrom cookie a\n}", "polar default {\npath /x\n}")
	f.Fuzz(func(t *testing.T, block, site string) {
		for _, part := range []struct {
			tokens string
			to     caddyfile.Unmarshaler
		}{
			{"polar {\n" + block + "\n}", new(Gateway)}, {"polar " + site, new(Handler)}, {"polar_require " + site, new(Gate)},
		} {
			tokens, err := caddyfile.Tokenize([]byte(part.tokens), "Caddyfile")
			if err != nil {
				continue
			}
			d := caddyfile.NewDispenser(tokens)
			if g, ok := part.to.(*Gateway); ok {
				d.Next()
				_ = g.UnmarshalCaddyfile(d)
				continue
			}
			_ = part.to.UnmarshalCaddyfile(d)
		}
	})
}

// TestGraceOver: a plan's grace replaces the gateway's value by value, and
// trial_past_due follows past_due only if neither names it.
func TestGraceOver(t *testing.T) {
	day := entitlement.PastDueGrace{For: 24 * time.Hour}
	for _, test := range []struct {
		gateway, plan *Grace
		want          entitlement.Grace
	}{
		{nil, nil, entitlement.DefaultGrace()},
		{&Grace{PastDue: "1d"}, nil, entitlement.Grace{PastDue: day, TrialPastDue: day, Renewal: 72 * time.Hour}},
		{&Grace{TrialPastDue: "off"}, &Grace{PastDue: "1d"}, entitlement.Grace{PastDue: day, Renewal: 72 * time.Hour}},
		{&Grace{PastDue: "polar"}, &Grace{TrialPastDue: "1d"}, entitlement.Grace{PastDue: entitlement.PastDueGrace{Polar: true}, TrialPastDue: day, Renewal: 72 * time.Hour}},
		{
			&Grace{Unpaid: new(caddy.Duration(time.Hour)), Renewal: new(caddy.Duration(time.Hour))},
			&Grace{PastDue: "1d", Unpaid: new(caddy.Duration(0)), Canceled: new(caddy.Duration(2))},
			entitlement.Grace{PastDue: day, TrialPastDue: day, Renewal: time.Hour, Canceled: 2},
		},
	} {
		got, err := test.plan.over(test.gateway.over(new(Grace))).resolve()
		if err != nil || got != test.want {
			t.Errorf("%+v over %+v: %+v, %v, want %+v", test.plan, test.gateway, got, err, test.want)
		}
	}
}
