// Package contract holds what a Polar in a box says against Polar's own OpenAPI
// document. It is for tests.
package contract

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
)

// document is Polar's document, closed: what it does not name is a mistake.
var document = sync.OnceValues(func() (*openapi3.T, error) {
	_, here, _, _ := runtime.Caller(0)
	raw, err := os.ReadFile(filepath.Join(filepath.Dir(here), "../../../../testdata/openapi-2026-10.json"))
	if err != nil {
		return nil, err
	}
	var all any
	if err := json.Unmarshal([]byte(lookaheads.Replace(string(raw))), &all); err != nil {
		return nil, err
	}
	strip(all)
	if raw, err = json.Marshal(all); err != nil {
		return nil, err
	}
	doc, err := openapi3.NewLoader().LoadFromData(raw)
	if err != nil {
		return nil, err
	}
	if err := bridge(doc); err != nil {
		return nil, err
	}
	seen := map[*openapi3.Schema]bool{}
	for _, s := range doc.Components.Schemas {
		closeSchema(s, seen)
	}
	for _, hook := range doc.Webhooks {
		closeSchema(hook.Post.RequestBody.Value.Content.Get("application/json").Schema, seen)
	}
	for _, item := range doc.Paths.Map() {
		for _, op := range item.Operations() {
			for _, response := range op.Responses.Map() {
				for _, media := range response.Value.Content {
					closeSchema(media.Schema, seen)
				}
			}
		}
	}
	return doc, nil
})

// strip takes out what is for people: two thirds of the document, which would
// take long to load.
func strip(v any) {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			strip(x)
		}
	case map[string]any:
		for _, key := range []string{"description", "examples", "x-codeSamples"} {
			if _, property := v[key].(map[string]any); !property {
				delete(v, key)
			}
		}
		for _, x := range v {
			strip(x)
		}
	}
}

// isOpen marks what is closed here only: Polar ignores what it does not know.
const isOpen = "x-open"

// Open says that Polar ignores what a request's body has too much.
func Open(s *openapi3.Schema) bool { return s.Extensions[isOpen] == true }

// closeSchema refuses properties that the document does not give.
func closeSchema(ref *openapi3.SchemaRef, seen map[*openapi3.Schema]bool) {
	if ref == nil || ref.Value == nil || seen[ref.Value] {
		return
	}
	s := ref.Value
	seen[s] = true
	if other := nullable(s); other != nil {
		closeSchema(other, seen)
		*s = *other.Value // two variants are tried twice at each level
		s.Nullable = true
		return
	}
	if s.Properties != nil && s.AdditionalProperties.Has == nil && s.AdditionalProperties.Schema == nil {
		no := false
		s.AdditionalProperties.Has = &no
		s.Extensions = map[string]any{isOpen: true}
	}
	if s.Type == nil && s.Const == nil && len(s.Enum)+len(s.AnyOf)+len(s.OneOf)+len(s.AllOf) == 0 {
		yes := true // null too, as in JSON Schema
		s.Always = &yes
	}
	if s.Const != nil { // the validator knows enums only
		s.Enum = []any{s.Const}
	}
	if len(s.PrefixItems) > 0 { // nor does it know tuples
		s.Items = openapi3.NewSchemaRef("", &openapi3.Schema{AnyOf: s.PrefixItems})
		s.PrefixItems = nil
	}
	for _, p := range s.Properties {
		closeSchema(p, seen)
	}
	for _, list := range []openapi3.SchemaRefs{s.AnyOf, s.OneOf, s.AllOf} {
		for _, v := range list {
			closeSchema(v, seen)
		}
	}
	closeSchema(s.Items, seen)
	closeSchema(s.AdditionalProperties.Schema, seen)
}

// nullable returns what a schema is that allows null and one other thing.
func nullable(s *openapi3.Schema) *openapi3.SchemaRef {
	if len(s.AnyOf) != 2 {
		return nil
	}
	for i, v := range s.AnyOf {
		if v.Value.Type.Is(openapi3.TypeNull) {
			return s.AnyOf[1-i]
		}
	}
	return nil
}

var options = []openapi3.SchemaValidationOption{
	openapi3.EnableFormatValidation(),
	openapi3.WithStringFormatValidator("uuid4", openapi3.NewRegexpFormatValidator(openapi3.FormatOfStringForUUIDOfRFC4122)),
	openapi3.WithStringFormatValidator("uri", openapi3.NewRegexpFormatValidator(`^https?://[^/]+`)),
	openapi3.MultiErrors(),
}

// mismatches says where a value is not what a schema wants.
func mismatches(s *openapi3.Schema, value any) []string {
	return explain(s.VisitJSON(value, options...), "")
}

// explain writes an error down in a few words. Of the variants of an anyOf or a
// oneOf it tells of the one that comes closest.
func explain(err error, at string) []string {
	switch e := err.(type) {
	case nil:
		return nil
	case openapi3.MultiError:
		var out []string
		for _, x := range e {
			out = append(out, explain(x, at)...)
		}
		return out
	case *openapi3.SchemaError:
		at := strings.TrimSuffix(at+"/"+strings.Join(e.JSONPointer(), "/"), "/")
		if e.SchemaField == "anyOf" || e.SchemaField == "oneOf" {
			if best := closest(e, at); len(best) > 0 {
				return best
			}
		}
		return []string{fmt.Sprintf("%s: %s (%.80s)", at, e.Reason, fmt.Sprint(e.Value))}
	}
	return []string{at + ": " + err.Error()}
}

func closest(e *openapi3.SchemaError, at string) (best []string) {
	for _, v := range append(e.Schema.AnyOf[:len(e.Schema.AnyOf):len(e.Schema.AnyOf)], e.Schema.OneOf...) {
		if v.Value.Type.Is(openapi3.TypeNull) {
			continue
		}
		why := explain(v.Value.VisitJSON(e.Value, options...), at)
		if best == nil || len(why) < len(best) {
			best = why
		}
	}
	return best
}
