package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestSVG(t *testing.T) {
	p := plot{
		title: "a < b & c", format: "%.2f", line: 1, legend: []string{"one", "two"},
		bars: []bar{{label: "plain", parts: []float64{1}}, {label: `<ours>`, parts: []float64{0.5, 0.25}, low: 0.4, high: 1.2, ours: true}},
	}
	svg := p.svg()
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("no XML: %v\n%s", err, svg)
		}
	}
	for _, want := range []string{"a &lt; b &amp; c", "&lt;ours&gt;", ">0.75<", `class="ours a"`, "prefers-color-scheme: dark"} {
		if !strings.Contains(svg, want) {
			t.Errorf("there is no %s in\n%s", want, svg)
		}
	}
	if strings.Contains((&plot{title: "nothing"}).svg(), "NaN") {
		t.Error("an empty plot has no numbers")
	}
}

func TestNiceStep(t *testing.T) {
	for most, want := range map[float64]float64{0: 1, 1: 0.2, 6: 1, 5.5: 1, 400: 100, 35: 10} {
		if got := niceStep(most); number(got) != number(want) {
			t.Errorf("niceStep(%v) = %v, want %v", most, got, want)
		}
	}
}
