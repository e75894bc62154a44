package identity

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// orgs is a block whose users have organizations, or pay for themselves.
func orgs(change func(*Block)) Block {
	b := Block{Secret: secretA, CustomerClaims: []string{"org_id"}, Manage: Manage{"org_role", []string{"owner", "admin"}}}
	if change != nil {
		change(&b)
	}
	return b
}

func TestPayer(t *testing.T) {
	elseOwn := func(b *Block) { b.CustomerClaims = []string{"org_id", "sub"} }
	nested := func(b *Block) { b.CustomerClaims, b.Manage.Path = []string{"o.id", "org_id"}, "o.rol" }
	nobody := func(b *Block) { b.Manage = Manage{} }
	alone := func(b *Block) { b.CustomerClaims = nil }
	plain := func(b *Block) { b.CustomerClaims, b.Manage = nil, Manage{} }
	prefix := func(b *Block) { b.UserPrefix = "p|" }
	null := json.RawMessage("null")
	tests := map[string]struct {
		block    func(*Block)
		claims   []any
		customer string
		manages  bool
		err      error
	}{
		"no words":                     {plain, []any{"org_id", "acme", "org_role", "admin"}, "alice", true, nil},
		"organization":                 {nil, []any{"org_id", "acme"}, "acme", false, nil},
		"integer":                      {nil, []any{"org_id", 7}, "7", false, nil},
		"manager":                      {nil, []any{"org_id", "acme", "org_role", "admin"}, "acme", true, nil},
		"one role of several":          {nil, []any{"org_id", "acme", "org_role", []string{"x", "owner"}}, "acme", true, nil},
		"other role":                   {nil, []any{"org_id", "acme", "org_role", "member"}, "acme", false, nil},
		"role, other case":             {nil, []any{"org_id", "acme", "org_role", "Admin"}, "acme", false, nil},
		"roles in one string":          {nil, []any{"org_id", "acme", "org_role", "owner admin"}, "acme", false, nil},
		"no role in the list":          {nil, []any{"org_id", "acme", "org_role", []string{}}, "acme", false, nil},
		"role number":                  {nil, []any{"org_id", "acme", "org_role", 1}, "acme", false, nil},
		"role true":                    {nil, []any{"org_id", "acme", "org_role", true}, "acme", false, nil},
		"role object":                  {nil, []any{"org_id", "acme", "org_role", map[string]any{"admin": true}}, "acme", false, nil},
		"role among numbers":           {nil, []any{"org_id", "acme", "org_role", []any{"admin", 1}}, "acme", false, nil},
		"role null":                    {nil, []any{"org_id", "acme", "org_role", null}, "acme", false, nil},
		"nobody manages":               {nobody, []any{"org_id", "acme", "org_role", "admin"}, "acme", false, nil},
		"nobody manages, own":          {nobody, []any{"org_id", "alice"}, "alice", true, nil},
		"none":                         {nil, nil, "", false, nil},
		"none, with a role":            {nil, []any{"org_role", "admin"}, "", false, nil},
		"none, nobody manages":         {nobody, nil, "", false, nil},
		"null":                         {nil, []any{"org_id", null}, "", false, nil},
		"else own":                     {elseOwn, nil, "alice", true, nil},
		"else own, null":               {elseOwn, []any{"org_id", null}, "alice", true, nil},
		"else own, with a role":        {elseOwn, []any{"org_role", "member"}, "alice", true, nil},
		"else own, organization":       {elseOwn, []any{"org_id", "acme"}, "acme", false, nil},
		"own, wrong type before":       {elseOwn, []any{"org_id", []string{"acme"}}, "", false, ErrCustomer},
		"nested":                       {nested, []any{"o", map[string]any{"id": "acme", "rol": "admin"}, "org_id", "x"}, "acme", true, nil},
		"nested, the second":           {nested, []any{"o", map[string]any{"rol": "admin"}, "org_id", "x"}, "x", true, nil},
		"nested in no object":          {nested, []any{"o", "acme"}, "", false, nil},
		"prefix":                       {prefix, []any{"org_id", "acme"}, "p|acme", false, nil},
		"prefix, none":                 {prefix, nil, "", false, nil},
		"role without organization":    {alone, []any{"org_role", "owner"}, "alice", true, nil},
		"no role without organization": {alone, nil, "alice", false, nil},
		"empty":                        {nil, []any{"org_id", ""}, "", false, nil},
		"empty, else own":              {elseOwn, []any{"org_id", ""}, "alice", true, nil},
		"blank":                        {nil, []any{"org_id", " "}, "", false, ErrCustomer},
		"blank at the end":             {nil, []any{"org_id", "acme "}, "", false, ErrCustomer},
		"float":                        {nil, []any{"org_id", json.Number("1e3")}, "", false, ErrCustomer},
		"bool":                         {nil, []any{"org_id", true}, "", false, ErrCustomer},
		"array":                        {nil, []any{"org_id", []string{"acme"}}, "", false, ErrCustomer},
		"object":                       {nil, []any{"org_id", map[string]any{"id": "acme"}}, "", false, ErrCustomer},
		"control":                      {nil, []any{"org_id", "ac\nme"}, "", false, ErrCustomer},
		"255 bytes":                    {nil, []any{"org_id", strings.Repeat("a", 255)}, strings.Repeat("a", 255), false, nil},
		"256 bytes":                    {nil, []any{"org_id", strings.Repeat("a", 256)}, "", false, ErrCustomer},
		"254 bytes and a prefix":       {prefix, []any{"org_id", strings.Repeat("a", 254)}, "", false, ErrCustomer},
		"user unusable too":            {nil, []any{"sub", "", "org_id", ""}, "", false, errUser},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := verifier(t, orgs(test.block))
			for range 2 { // the second comes from memory, if there was something to remember
				id, err := v.Identify(context.Background(), bearerHeader(signA(test.claims...)), now)
				if !errors.Is(err, test.err) || err != nil && !errors.Is(err, ErrInvalid) {
					t.Fatalf("%v, want %v", err, test.err)
				}
				if id.Customer != test.customer || id.Manages != test.manages || (id.User == "") != (err != nil) {
					t.Errorf("%+v, want %q, %v", id, test.customer, test.manages)
				}
			}
		})
	}
	if !strings.Contains(ErrCustomer.Error(), "customer claim") {
		t.Error(ErrCustomer)
	}
}

// TestPayerOfEachToken: what one token of a user says of who pays is not remembered for
// the next one.
func TestPayerOfEachToken(t *testing.T) {
	v := verifier(t, orgs(nil))
	rapid.Check(t, func(t *rapid.T) {
		org := rapid.SampledFrom([]string{"", "acme", "umbrella"}).Draw(t, "organization")
		role := rapid.SampledFrom([]string{"", "admin", "member"}).Draw(t, "role")
		var changes []any
		for claim, value := range map[string]string{"org_id": org, "org_role": role} {
			if value != "" {
				changes = append(changes, claim, value)
			}
		}
		id, err := v.Identify(context.Background(), bearerHeader(signA(changes...)), now)
		if err != nil || id.User != "alice" || id.Customer != org || id.Manages != (org != "" && role == "admin") {
			t.Fatalf("%+v, %v", id, err)
		}
	})
}

func TestPayerMistakes(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Block)
		err    error
	}{
		"empty path":        {func(b *Block) { b.CustomerClaims = []string{"org_id", ""} }, ErrPayer},
		"path alone":        {func(b *Block) { b.Manage.Values = nil }, ErrPayer},
		"values alone":      {func(b *Block) { b.Manage.Path = "" }, ErrPayer},
		"empty value":       {func(b *Block) { b.Manage.Values = []string{"admin", ""} }, ErrPayer},
		"empty step":        {func(b *Block) { b.CustomerClaims = []string{"a..b"} }, ErrPayer},
		"empty first step":  {func(b *Block) { b.Manage.Path = ".role" }, ErrPayer},
		"users write it":    {func(b *Block) { b.CustomerClaims = []string{"org_id", "user_metadata.org"} }, ErrEditable},
		"users write roles": {func(b *Block) { b.Manage.Path = "unsafe_metadata.role" }, ErrEditable},
	} {
		b := orgs(test.change)
		if _, err := New([]Block{b}); !errors.Is(err, test.err) {
			t.Errorf("%s: %v", name, err)
		}
		p := Paths{User: "id", Email: "e", EmailVerified: "v", Customer: b.CustomerClaims, Manage: b.Manage}
		if _, err := NewReader(p, ""); !errors.Is(err, test.err) {
			t.Errorf("%s: a reader: %v", name, err)
		}
	}
}

func TestReaderOfPayers(t *testing.T) {
	r := must(NewReader(Paths{
		User: "user.id", Email: "user.email", EmailVerified: "user.emailVerified",
		Customer: []string{"session.org", "user.id"}, Manage: Manage{"session.role", []string{"owner"}},
	}, "p|"))
	for body, want := range map[string]struct {
		customer string
		manages  bool
		err      error
	}{
		`{"user":{"id":"ada"},"session":{"org":"acme","role":"owner"}}`: {"p|acme", true, nil},
		`{"user":{"id":"ada"},"session":{"org":"acme"}}`:                {"p|acme", false, nil},
		`{"user":{"id":"ada"},"session":{"org":null}}`:                  {"p|ada", true, nil},
		`{"user":{"id":"ada"}}`:                                         {"p|ada", true, nil},
		`{"user":{"id":"ada"},"session":{"org":[]}}`:                    {"", false, ErrCustomer},
		`{"session":{"org":"acme","role":"owner"}}`:                     {"", false, ErrMissing},
	} {
		var object map[string]any
		if err := json.Unmarshal([]byte(body), &object); err != nil {
			t.Fatal(err)
		}
		id, err := r.Read(object)
		if id.Customer != want.customer || id.Manages != want.manages || !errors.Is(err, want.err) {
			t.Errorf("%s: %+v, %v", body, id, err)
		}
	}
}

// TestMemoryWeighsPayers: long ids count, so that they cannot make the memory larger
// than it may be.
func TestMemoryWeighsPayers(t *testing.T) {
	weigh := func(org string) uint64 {
		v := verifier(t, orgs(nil))
		token := signA("org_id", org)
		must(v.Identify(context.Background(), bearerHeader(token), now))
		remembered(v)
		return v.sources[0].memory.cache.WeightedSize() - uint64(len(token))
	}
	if short, long := weigh("a"), weigh(strings.Repeat("a", 201)); long != short+200 {
		t.Errorf("200 bytes weigh %d", long-short)
	}
}
