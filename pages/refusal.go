package pages

import (
	"cmp"
	"html/template"
	"time"
)

// Link is a way on.
type Link struct {
	Label string // the key of its text, without "next."
	URL   string
	Name  string // what stands in the text, if something does
	Plan  string // of the operator's, by whose name that may go instead
}

// Field is a complaint about one field of what was sent.
type Field struct{ Name, Message string }

// Refusal is the answer to somebody who does not get what they asked for.
type Refusal struct {
	// Code is the stable code. Text is the key of what is said, if not the code.
	// Title and Detail are said if there is nothing more telling in the visitor's
	// language.
	Code, Text, Title, Detail string
	// Until is when access ended, LastChance when a payment that failed is no longer
	// tried. Zero: unknown.
	Until, LastChance time.Time
	// Elsewhere says that the visitor can do nothing about it: somebody else pays.
	Elsewhere bool
	// Next is what to do, Others are what else there is.
	Next   *Link
	Others []Link
	// Offers would open it.
	Offers []Offer
	Fields []Field
	// RequestID is what to name when asking for help.
	RequestID string
}

func (*Refusal) template() string { return "refusal" }
func (*Refusal) policy() string   { return noForms }

func (p *Refusal) key() string {
	if p.Text != "" {
		return p.Text
	}
	return p.Code
}

// Headline is the title. A page can have a friendlier one than an answer to a
// machine.
func (s *scene) Headline(p *Refusal) template.HTML {
	return fill(cmp.Or(s.say[p.key()+".heading"], s.say[p.key()+".title"], clean(p.Title, maxLine)))
}

// Lines say what is the matter.
func (s *scene) Lines(p *Refusal) (lines []template.HTML) {
	key := p.key()
	ours := english[key+".detail"]
	switch dated := s.say[key+".dated"]; {
	case p.Elsewhere && s.say[key+".other"] != "":
		return append(lines, s.Say(key+".other"))
	case s.say[key+".lead"] != "" && p.Detail == ours:
		lines = append(lines, s.Say(key+".lead"))
	case dated != "" && !p.Until.IsZero():
		lines = append(lines, fill(dated, "date", s.Date(p.Until)))
	case p.Text != "" || p.Detail == ours && ours != "":
		lines = append(lines, s.Say(key+".detail"))
	case p.Detail != "":
		lines = append(lines, fill(clean(p.Detail, maxPara)))
	}
	if p.LastChance.After(s.now) {
		if left := s.say[key+".left"]; left != "" {
			lines = append(lines, fill(left, "date", s.Date(p.LastChance), "days", s.days(p.LastChance)))
		}
	}
	return lines
}

// LinkText is what a link says.
func (s *scene) LinkText(l Link) template.HTML {
	return s.Say("next."+l.Label, "name", s.named(s.Title(&Offer{Name: l.Name, Plan: l.Plan})))
}

// named is a name inside a sentence, whose direction does not turn the rest of it.
func (s *scene) named(name string) template.HTML {
	return isolated(clean(name, maxLine))
}
