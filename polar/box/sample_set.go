package box

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Setting changes a value in the data of a sample.
type Setting struct {
	Path  string // of the value; dots reach into objects, numbers into lists
	Value any    // what JSON holds
}

// ParseSetting reads path=value. What is not JSON is a string.
func ParseSetting(text string) (Setting, error) {
	path, value, ok := strings.Cut(text, "=")
	path = strings.TrimPrefix(strings.TrimSpace(path), "data.")
	if !ok || path == "" || slices.Contains(strings.Split(path, "."), "") {
		return Setting{}, fmt.Errorf("%.64q is not key=value, as in status=past_due or customer.name=Ada", text)
	}
	decoded, err := decode([]byte(value))
	if err != nil {
		decoded = value
	}
	return Setting{path, decoded}, nil
}

// decode keeps numbers as they are written.
func decode(raw []byte) (any, error) {
	if !json.Valid(raw) { // a decoder would stop after the first value
		return nil, fmt.Errorf("no JSON")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	err := d.Decode(&v)
	return v, err
}

func apply(data json.RawMessage, settings []Setting) (json.RawMessage, error) {
	if len(settings) == 0 {
		return data, nil
	}
	v, err := decode(data)
	if err != nil {
		return nil, err
	}
	for _, s := range settings {
		if v, err = assign(v, strings.Split(s.Path, "."), s.Value); err != nil {
			return nil, fmt.Errorf("cannot set %.64q: %w", s.Path, err)
		}
	}
	return encode(v)
}

// openObjects are those in which any key may stand. Dots are part of it.
var openObjects = []string{"metadata", "custom_field_data", "seat_metadata", "benefit_metadata", "properties", "previous_properties"}

// assign sets a value and returns what holds it. A key that is not there is
// refused: Polar's objects are complete, so it is a mistake.
func assign(in any, path []string, value any) (any, error) {
	if len(path) == 0 {
		return value, nil
	}
	key, rest := path[0], path[1:]
	var err error
	switch in := in.(type) {
	case map[string]any:
		old, ok := in[key]
		if !ok {
			return nil, unknownKey(key, in)
		}
		if slices.Contains(openObjects, key) && len(rest) > 0 {
			inner, _ := old.(map[string]any) // or null
			inner = maps.Clone(object(inner))
			inner[strings.Join(rest, ".")] = value
			in[key] = inner
			return in, nil
		}
		in[key], err = assign(old, rest, value)
		return in, err
	case []any:
		i, numberErr := strconv.Atoi(key)
		if numberErr != nil || i < 0 || i >= len(in) {
			return nil, fmt.Errorf("it is a list of %d, and %.64q is not the number of one of them, from 0", len(in), key)
		}
		in[i], err = assign(in[i], rest, value)
		return in, err
	case nil:
		return nil, fmt.Errorf("what holds %.64q is null: set the whole of it, as JSON", key)
	}
	return nil, fmt.Errorf("what should hold %.64q is no object", key)
}

func unknownKey(key string, in map[string]any) error {
	keys := slices.Sorted(maps.Keys(in))
	if near := nearest(key, keys); near != "" {
		return fmt.Errorf("no %.64q there: did you mean %s?", key, near)
	}
	return fmt.Errorf("no %.64q there, but %s", key, strings.Join(keys, ", "))
}
