package identity

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestTimes(t *testing.T) {
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	zero := new(time.Duration(0))
	tests := map[string]struct {
		leeway  *time.Duration
		changes []any
		err     error
	}{
		"good":                   {nil, []any{"exp", at(time.Second)}, nil},
		"within leeway":          {nil, []any{"exp", at(-29 * time.Second)}, nil},
		"at leeway":              {nil, []any{"exp", at(-30 * time.Second)}, ErrExpired},
		"long expired":           {nil, []any{"exp", at(-time.Hour)}, ErrExpired},
		"exp zero":               {nil, []any{"exp", 0}, ErrExpired},
		"no leeway":              {zero, []any{"exp", at(0)}, ErrExpired},
		"no leeway, good":        {zero, []any{"exp", at(time.Second)}, nil},
		"large leeway":           {new(5 * time.Minute), []any{"exp", at(-299 * time.Second)}, nil},
		"fraction":               {zero, []any{"exp", json.Number("1800000000.5")}, nil},
		"exponent":               {zero, []any{"exp", json.Number("1.9e9")}, nil},
		"no exp":                 {nil, []any{"exp", nil}, errExpiry},
		"exp null":               {nil, []any{"exp", json.RawMessage("null")}, errExpiry},
		"exp string":             {nil, []any{"exp", fmt.Sprint(at(time.Hour))}, errExpiry},
		"exp bool":               {nil, []any{"exp", true}, errExpiry},
		"exp array":              {nil, []any{"exp", []int64{at(time.Hour)}}, errExpiry},
		"exp object":             {nil, []any{"exp", map[string]any{}}, errExpiry},
		"exp negative":           {nil, []any{"exp", -1}, errExpiry},
		"exp in milliseconds":    {nil, []any{"exp", now.UnixMilli()}, errExpiry},
		"exp beyond float":       {nil, []any{"exp", json.Number("1e999")}, errExpiry},
		"nbf past":               {nil, []any{"nbf", at(-time.Hour)}, nil},
		"nbf within leeway":      {nil, []any{"nbf", at(30 * time.Second)}, nil},
		"nbf after leeway":       {nil, []any{"nbf", at(31 * time.Second)}, errNotBefore},
		"nbf, no leeway":         {zero, []any{"nbf", at(time.Second)}, errNotBefore},
		"nbf of wrong type":      {nil, []any{"nbf", "0"}, errNotBefore},
		"nbf beyond float":       {nil, []any{"nbf", json.Number("1e999")}, errNotBefore},
		"iat in the future":      {nil, []any{"iat", at(time.Hour)}, nil},
		"expired, user unusable": {nil, []any{"exp", 1, "sub", ""}, errUser},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := verifier(t, Block{Secret: secretA, Leeway: test.leeway})
			id, err := v.Identify(context.Background(), bearerHeader(signA(test.changes...)), now)
			if test.err != nil {
				check(t, id, err, "", test.err)
			} else {
				check(t, id, err, "alice", nil)
			}
		})
	}
}

func TestIssuerAndAudience(t *testing.T) {
	tests := map[string]struct {
		issuers, audiences string
		iss, aud           any
		err                error
	}{
		"unchecked":              {"", "", nil, nil, nil},
		"unchecked, odd":         {"", "any", 1, 2, nil},
		"waived":                 {"any", "any", "x", "y", nil},
		"issuer":                 {"a b", "", "b", nil, nil},
		"other issuer":           {"a b", "", "c", nil, errIssuer},
		"issuer, other case":     {"a", "", "A", nil, errIssuer},
		"issuer any is no wild":  {"a", "", "any", nil, errIssuer},
		"no issuer":              {"a", "", nil, nil, errIssuer},
		"issuer number":          {"1", "", 1, nil, errIssuer},
		"issuer array":           {"a", "", []string{"a"}, nil, errIssuer},
		"audience":               {"", "x y", nil, "y", nil},
		"other audience":         {"", "x y", nil, "z", errAudience},
		"no audience":            {"", "x", nil, nil, errAudience},
		"audience array":         {"", "x y", nil, []string{"z", "x"}, nil},
		"audience array, none":   {"", "x y", nil, []string{"z", "xy"}, errAudience},
		"audience array, empty":  {"", "x", nil, []string{}, errAudience},
		"audience array, mixed":  {"", "x", nil, []any{"x", 1}, errAudience},
		"audience array, nested": {"", "x", nil, []any{[]string{"x"}}, errAudience},
		"audience number":        {"", "1", nil, 1, errAudience},
		"audience object":        {"", "x", nil, map[string]any{"x": "x"}, errAudience},
		"both":                   {"a", "x", "a", "x", nil},
		"both, one wrong":        {"a", "x", "a", "a", errAudience},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := verifier(t, Block{Secret: secretA, Issuers: strings.Fields(test.issuers), Audiences: strings.Fields(test.audiences)})
			id, err := v.Identify(context.Background(), bearerHeader(signA("iss", test.iss, "aud", test.aud)), now)
			if test.err != nil {
				check(t, id, err, "", test.err)
			} else {
				check(t, id, err, "alice", nil)
			}
		})
	}
}

func TestUserClaim(t *testing.T) {
	tests := map[string]struct {
		claim, prefix string
		payload       string
		user          string // "": refused
	}{
		"string":                   {"", "", `"sub":"alice"`, "alice"},
		"prefix":                   {"", "p:", `"sub":"alice"`, "p:alice"},
		"unicode":                  {"", "", `"sub":"Zoë ☃"`, "Zoë ☃"},
		"number":                   {"", "", `"sub":42`, "42"},
		"negative":                 {"", "", `"sub":-42`, "-42"},
		"prefixed number":          {"", "p:", `"sub":42`, "p:42"},
		"huge integer":             {"", "", `"sub":123456789012345678901234567890`, "123456789012345678901234567890"},
		"integer too huge":         {"", "", `"sub":1` + strings.Repeat("0", 255), ""},
		"above 2^53":               {"", "", `"sub":9007199254740993`, "9007199254740993"},
		"float":                    {"", "", `"sub":1.5`, ""},
		"integral float":           {"", "", `"sub":1.0`, ""},
		"exponent":                 {"", "", `"sub":1e3`, ""},
		"capital exponent":         {"", "", `"sub":1E3`, ""},
		"missing":                  {"", "", `"x":1`, ""},
		"missing with prefix":      {"", "p:", `"x":1`, ""},
		"null":                     {"", "", `"sub":null`, ""},
		"bool":                     {"", "", `"sub":true`, ""},
		"empty":                    {"", "", `"sub":""`, ""},
		"empty with prefix":        {"", "p:", `"sub":""`, ""},
		"object":                   {"", "", `"sub":{"id":"alice"}`, ""},
		"array":                    {"", "", `"sub":["alice"]`, ""},
		"newline":                  {"", "", `"sub":"a\nb"`, ""},
		"NUL":                      {"", "", `"sub":"a\u0000"`, ""},
		"DEL":                      {"", "", `"sub":"a\u007f"`, ""},
		"C1 control":               {"", "", `"sub":"a\u0085"`, ""},
		"invalid UTF-8":            {"", "", "\"sub\":\"a\xff\"", ""},
		"lone surrogate":           {"", "", `"sub":"a\ud800"`, ""},
		"longest":                  {"", "", `"sub":"` + strings.Repeat("a", 255) + `"`, strings.Repeat("a", 255)},
		"too long":                 {"", "", `"sub":"` + strings.Repeat("a", 256) + `"`, ""},
		"too long with prefix":     {"", "p", `"sub":"` + strings.Repeat("a", 255) + `"`, ""},
		"too long in bytes":        {"", "", `"sub":"` + strings.Repeat("é", 128) + `"`, ""},
		"other claim":              {"id", "", `"sub":"alice","id":"bob"`, "bob"},
		"other claim missing":      {"id", "", `"sub":"alice"`, ""},
		"other case":               {"", "", `"Sub":"alice"`, ""},
		"nested":                   {"a.b.c", "", `"a":{"b":{"c":"bob"}}`, "bob"},
		"nested number":            {"a.b", "", `"a":{"b":7}`, "7"},
		"nested missing":           {"a.b", "", `"a":{"c":"bob"}`, ""},
		"nested in a string":       {"a.b", "", `"a":"b"`, ""},
		"nested in an array":       {"a.0", "", `"a":["bob"]`, ""},
		"namespaced":               {"https://x.example/id", "", `"https://x.example/id":"bob"`, "bob"},
		"literal before nested":    {"a.b", "", `"a":{"b":"eve"},"a.b":"bob"`, "bob"},
		"bad literal, good nested": {"a.b", "", `"a":{"b":"eve"},"a.b":null`, ""},
		"only dots":                {"..", "", `"sub":"alice"`, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := verifier(t, Block{Secret: secretA, UserClaim: test.claim, UserPrefix: test.prefix})
			id, err := v.Identify(context.Background(), bearerHeader(raw(`{"exp":1800003600,`+test.payload+`}`)), now)
			if test.user == "" {
				check(t, id, err, "", errUser)
			} else {
				check(t, id, err, test.user, nil)
			}
		})
	}
}

func TestEmailClaim(t *testing.T) {
	tests := map[string]struct {
		claim    string
		payload  string
		email    string
		verified bool
	}{
		"none":                 {"", `"x":1`, "", false},
		"verified":             {"", `"email":"a@b.c","email_verified":true`, "a@b.c", true},
		"not verified":         {"", `"email":"a@b.c","email_verified":false`, "a@b.c", false},
		"not said":             {"", `"email":"a@b.c"`, "a@b.c", false},
		"string true":          {"", `"email":"a@b.c","email_verified":"true"`, "a@b.c", false},
		"number":               {"", `"email":"a@b.c","email_verified":1`, "a@b.c", false},
		"array":                {"", `"email":"a@b.c","email_verified":[true]`, "a@b.c", false},
		"verified, no address": {"", `"email_verified":true`, "", false},
		"address a number":     {"", `"email":1,"email_verified":true`, "", false},
		"address empty":        {"", `"email":"","email_verified":true`, "", false},
		"address with newline": {"", `"email":"a@b.c\r\nx","email_verified":true`, "", false},
		"address too long":     {"", `"email":"` + strings.Repeat("a", 321) + `","email_verified":true`, "", false},
		"other claim":          {"mail", `"email":"a@b.c","email_verified":true,"mail":"d@e.f"`, "d@e.f", false},
		"other claim verified": {"mail", `"mail":"d@e.f","mail_verified":true`, "d@e.f", true},
		"nested":               {"u.mail", `"u":{"mail":"d@e.f","mail_verified":true}`, "d@e.f", true},
		"nested, flag outside": {"u.mail", `"u":{"mail":"d@e.f"},"mail_verified":true`, "d@e.f", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := verifier(t, Block{Secret: secretA, EmailClaim: test.claim})
			id, err := v.Identify(context.Background(), bearerHeader(raw(`{"sub":"alice","exp":1800003600,`+test.payload+`}`)), now)
			check(t, id, err, "alice", nil)
			if id.Email != test.email || id.EmailVerified != test.verified {
				t.Fatalf("e-mail is %q %v, want %q %v", id.Email, id.EmailVerified, test.email, test.verified)
			}
		})
	}
}
