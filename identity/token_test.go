package identity

import (
	"context"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestFindToken(t *testing.T) {
	auth, session, other := Source{Header: "Authorization"}, Source{Cookie: "session"}, Source{Header: "X-Token"}
	good, bad := signA(), signB()
	tests := map[string]struct {
		sources []Source
		header  http.Header
		source  Source // where it is found; zero: err
		err     error
	}{
		"nothing":                       {nil, http.Header{}, Source{}, ErrMissing},
		"nil header":                    {nil, nil, Source{}, ErrMissing},
		"default":                       {nil, bearerHeader(good), auth, nil},
		"cookie is no default":          {nil, http.Header{"Cookie": {"session=" + good}}, Source{}, ErrMissing},
		"lower case":                    {nil, http.Header{"Authorization": {"bearer " + good}}, auth, nil},
		"mixed case, spaces":            {nil, http.Header{"Authorization": {" BeArEr  \t" + good + " "}}, auth, nil},
		"bare":                          {nil, http.Header{"Authorization": {good}}, Source{}, ErrMissing},
		"basic":                         {nil, http.Header{"Authorization": {"Basic " + good}}, Source{}, ErrMissing},
		"longer scheme":                 {nil, http.Header{"Authorization": {"Bearerx " + good}}, Source{}, ErrMissing},
		"no space":                      {nil, http.Header{"Authorization": {"Bearer" + good}}, Source{}, ErrMissing},
		"scheme alone":                  {nil, http.Header{"Authorization": {"Bearer"}}, Source{}, ErrMissing},
		"empty token":                   {nil, http.Header{"Authorization": {"Bearer  "}}, Source{}, ErrMissing},
		"empty header":                  {nil, http.Header{"Authorization": {""}}, Source{}, ErrMissing},
		"two headers":                   {nil, http.Header{"Authorization": {"Bearer " + good, "Bearer " + good}}, Source{}, ErrInvalid},
		"two headers, one basic":        {nil, http.Header{"Authorization": {"Basic x", "Bearer " + good}}, Source{}, ErrInvalid},
		"two headers, then cookie":      {[]Source{auth, session}, http.Header{"Authorization": {"Basic x", "Basic y"}, "Cookie": {"session=" + good}}, Source{}, ErrInvalid},
		"basic, then cookie":            {[]Source{auth, session}, http.Header{"Authorization": {"Basic x"}, "Cookie": {"session=" + good}}, session, nil},
		"empty bearer, then cookie":     {[]Source{auth, session}, http.Header{"Authorization": {"Bearer "}, "Cookie": {"session=" + good}}, session, nil},
		"bad bearer before cookie":      {[]Source{auth, session}, http.Header{"Authorization": {"Bearer " + bad}, "Cookie": {"session=" + good}}, Source{}, ErrInvalid},
		"good bearer before bad cookie": {[]Source{auth, session}, http.Header{"Authorization": {"Bearer " + good}, "Cookie": {"session=" + bad}}, auth, nil},
		"cookie before bearer":          {[]Source{session, auth}, http.Header{"Authorization": {"Bearer " + bad}, "Cookie": {"session=" + good}}, session, nil},
		"bad cookie before bearer":      {[]Source{session, auth}, http.Header{"Authorization": {"Bearer " + good}, "Cookie": {"session=x"}}, Source{}, ErrInvalid},
		"empty cookie before bearer":    {[]Source{session, auth}, http.Header{"Authorization": {"Bearer " + good}, "Cookie": {"session="}}, auth, nil},
		"cookie among others":           {[]Source{session}, http.Header{"Cookie": {"a=b; session=" + good + "; xsession=c; session2=d"}}, session, nil},
		"cookie, no spaces":             {[]Source{session}, http.Header{"Cookie": {"a=b;;session=" + good + ";"}}, session, nil},
		"quoted cookie":                 {[]Source{session}, http.Header{"Cookie": {`session="` + good + `"`}}, session, nil},
		"cookie of another case":        {[]Source{session}, http.Header{"Cookie": {"Session=" + good}}, Source{}, ErrMissing},
		"same cookie twice":             {[]Source{session}, http.Header{"Cookie": {"session=" + good + "; session=" + good}}, session, nil},
		"two cookies":                   {[]Source{session}, http.Header{"Cookie": {"session=" + good + "; session=" + bad}}, Source{}, ErrInvalid},
		"two cookies, one empty":        {[]Source{session}, http.Header{"Cookie": {"session; session=" + good}}, Source{}, ErrInvalid},
		"two cookies in two headers":    {[]Source{session}, http.Header{"Cookie": {"session=" + good, "session=" + bad}}, Source{}, ErrInvalid},
		"second cookie header":          {[]Source{session}, http.Header{"Cookie": {"a=b", "session=" + good}}, session, nil},
		"other header":                  {[]Source{{Header: "x-token"}}, http.Header{"X-Token": {" " + good}}, other, nil},
		"other header is bare":          {[]Source{other}, http.Header{"X-Token": {"Bearer " + good}}, Source{}, ErrInvalid},
		"other header twice":            {[]Source{other}, http.Header{"X-Token": {good, good}}, Source{}, ErrInvalid},
		"other header empty":            {[]Source{other, session}, http.Header{"X-Token": {""}, "Cookie": {"session=" + good}}, session, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := verifier(t, Block{Secret: secretA, Sources: test.sources})
			id, err := v.Identify(context.Background(), test.header, now)
			if test.err != nil {
				check(t, id, err, "", test.err)
				return
			}
			check(t, id, err, "alice", nil)
			if id.Source != test.source {
				t.Fatalf("source is %+v, want %+v", id.Source, test.source)
			}
		})
	}
}

func TestStrip(t *testing.T) {
	session := Source{Cookie: "session"}
	tests := map[string]struct {
		source Source
		header http.Header
		want   http.Header
	}{
		"authorization":    {Source{Header: "Authorization"}, http.Header{"Authorization": {"a", "b"}, "Cookie": {"c=d"}}, http.Header{"Cookie": {"c=d"}}},
		"absent":           {session, http.Header{"Accept": {"a"}}, http.Header{"Accept": {"a"}}},
		"only":             {session, http.Header{"Cookie": {"session=x"}}, http.Header{}},
		"first":            {session, http.Header{"Cookie": {"session=x; b=2; c=3"}}, http.Header{"Cookie": {"b=2; c=3"}}},
		"middle":           {session, http.Header{"Cookie": {"a=1; session=x; c=3"}}, http.Header{"Cookie": {"a=1; c=3"}}},
		"last":             {session, http.Header{"Cookie": {"a=1; session=x"}}, http.Header{"Cookie": {"a=1"}}},
		"all of that name": {session, http.Header{"Cookie": {"session=x; a=1; session=y", "session", "b=2"}}, http.Header{"Cookie": {"a=1", "b=2"}}},
		"similar names":    {session, http.Header{"Cookie": {"xsession=1; session2=2; Session=3"}}, http.Header{"Cookie": {"xsession=1; session2=2; Session=3"}}},
		"odd ones stay":    {session, http.Header{"Cookie": {"a;;b=\"x\" ; session=1;c=session=2"}}, http.Header{"Cookie": {"a;;b=\"x\" ;c=session=2"}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			shared := test.header["Cookie"]
			before := strings.Join(shared, "|")
			test.source.Strip(test.header)
			if !reflect.DeepEqual(test.header, test.want) {
				t.Fatalf("headers are %q, want %q", test.header, test.want)
			}
			if strings.Join(shared, "|") != before {
				t.Fatal("Strip wrote into the old slice")
			}
		})
	}
}

// TestStripTakesOnlyTheCookie compares with net/http's reading of the cookies.
func TestStripTakesOnlyTheCookie(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pair := rapid.StringMatching(` ?(session|sess|a|b)(=("[a-c=]*"|[a-c= ]*))?`)
		header := rapid.SliceOfN(rapid.SliceOfN(pair, 1, 5), 1, 3).Draw(t, "pairs")
		h := http.Header{"Accept": {"x"}}
		for _, pairs := range header {
			h.Add("Cookie", strings.Join(pairs, ";"))
		}
		var want []http.Cookie
		for _, c := range (&http.Request{Header: h}).Cookies() {
			if c.Name != "session" {
				want = append(want, *c)
			}
		}
		Source{Cookie: "session"}.Strip(h)
		var got []http.Cookie
		for _, c := range (&http.Request{Header: h}).Cookies() {
			got = append(got, *c)
		}
		if !reflect.DeepEqual(got, want) || h.Get("Accept") != "x" {
			t.Fatalf("left are %v, want %v", got, want)
		}
		if strings.Contains(strings.Join(h["Cookie"], ";"), "session") {
			t.Fatalf("a session is left in %q", h["Cookie"])
		}
	})
}

// TestFindCookieAgrees compares with net/http wherever that accepts the value.
func TestFindCookieAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.StringMatching(`("[a-c]*"|[a-c.]*)`).Draw(t, "value")
		before := rapid.StringMatching(`((a|sess)=[a-c]*; ?)*`).Draw(t, "before")
		after := rapid.StringMatching(`(; ?(b|sessions)=[a-c]*)*`).Draw(t, "after")
		h := http.Header{"Cookie": {before + "session=" + value + after}}
		want, err := (&http.Request{Header: h}).Cookie("session")
		if err != nil {
			t.Fatal(err)
		}
		got, err := Source{Cookie: "session"}.find(h)
		if err != nil || got != want.Value {
			t.Fatalf("found %q, %v, want %q in %q", got, err, want.Value, h["Cookie"])
		}
	})
}
