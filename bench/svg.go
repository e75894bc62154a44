package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// bar is a line of a plot: parts one after the other, and how far the values
// reach that the first is the median of.
type bar struct {
	label     string
	parts     []float64
	low, high float64
	ours      bool
}

type plot struct {
	title  string
	format string // of the number at the end of a bar
	legend []string
	line   float64 // a vertical line there
	bars   []bar
}

// svg draws the plot. Its colours follow the reader's light or dark screen.
func (p *plot) svg() string {
	const (
		width, left, right = 860, 210, 70
		top, step, thick   = 56, 24, 14
	)
	most := p.line
	for _, b := range p.bars {
		most = max(most, b.high, sum(b.parts))
	}
	ticks := niceStep(most)
	scale := (width - left - right) / max(ticks, math.Ceil(most/ticks)*ticks)
	x := func(value float64) float64 { return left + value*scale }
	bottom := top + step*len(p.bars)

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="12" role="img">
<title>%s</title>
<style>
.back { fill: #ffffff } text { fill: #24292f } .grid { stroke: #d8dee4 } .line { stroke: #57606a; stroke-dasharray: 4 3 }
.a { fill: #8c959f } .b { fill: #d0d7de } .ours.a { fill: #0969da } .ours.b { fill: #80ccff } .reach { stroke: #24292f }
@media (prefers-color-scheme: dark) {
.back { fill: #0d1117 } text { fill: #e6edf3 } .grid { stroke: #30363d } .line { stroke: #9198a1 }
.a { fill: #6e7681 } .b { fill: #3d444d } .ours.a { fill: #4493f8 } .ours.b { fill: #1f4f8f } .reach { stroke: #e6edf3 }
}
</style>
<rect class="back" width="100%%" height="100%%"/>
<text x="12" y="24" font-size="15" font-weight="600">%s</text>
`, width, bottom+32, html.EscapeString(p.title), html.EscapeString(p.title))
	for i, name := range p.legend {
		at := left + 110*i
		fmt.Fprintf(&b, `<rect class="%c" x="%d" y="35" width="10" height="10"/><text x="%d" y="44">%s</text>`+"\n", 'a'+i, at, at+15, html.EscapeString(name))
	}
	for value := 0.0; value <= most+ticks*0.999; value += ticks {
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n",
			x(value), top-4, x(value), bottom, x(value), bottom+16, number(value))
	}
	if p.line > 0 {
		fmt.Fprintf(&b, `<line class="line" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`+"\n", x(p.line), top-4, x(p.line), bottom)
	}
	for i, bar := range p.bars {
		y, from, ours := top+step*i, 0.0, ""
		if bar.ours {
			ours = "ours "
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", left-8, y+12, html.EscapeString(bar.label))
		for j, part := range bar.parts {
			part = max(0, part)
			fmt.Fprintf(&b, `<rect class="%s%c" x="%.1f" y="%d" width="%.1f" height="%d"/>`, ours, 'a'+j, x(from), y, part*scale, thick)
			from += part
		}
		if bar.high > 0 {
			fmt.Fprintf(&b, `<line class="reach" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`, x(bar.low), y+thick/2, x(bar.high), y+thick/2)
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%s</text>`+"\n", x(max(from, bar.high))+6, y+12, fmt.Sprintf(p.format, sum(bar.parts)))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func sum(values []float64) (total float64) {
	for _, v := range values {
		total += v
	}
	return total
}

// niceStep is 1, 2 or 5 times a power of ten, of which some six make up most.
func niceStep(most float64) float64 {
	if most <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(most/6)))
	for _, times := range []float64{1, 2, 5} {
		if most/6 <= times*power {
			return times * power
		}
	}
	return 10 * power
}

func number(value float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", value), "0"), ".")
}
