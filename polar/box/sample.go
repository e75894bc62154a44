package box

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-polar/caddy-polar/polar"
)

// SampleOrganization is the organization of samples that name no other. No
// organization has this id, so a gateway takes it for none: it neither learns
// it nor finds it foreign.
const SampleOrganization = polar.NoOrganization

// SampleOptions say whom a sample is about. The zero value is useful.
type SampleOptions struct {
	// Now is when the event happens; the default is the current time.
	Now time.Time
	// User is an external id, usr_demo by default: of the customer, or of the
	// member where the event is of a member or a seat.
	User string
	// Email is the user's; the default is made of the user.
	Email string
	// ProductID is the product's; the default is a new one.
	ProductID string
	// OrganizationID is SampleOrganization by default.
	OrganizationID string
	// Set changes the data in the end, in this order.
	Set []Setting
}

func (o *SampleOptions) fill() {
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	o.Now = o.Now.UTC().Truncate(time.Microsecond)
	if o.User == "" {
		o.User = "usr_demo"
	}
	if o.Email == "" {
		o.Email = emailOf(o.User)
	}
	if o.OrganizationID == "" {
		o.OrganizationID = SampleOrganization
	}
}

// emailOf makes an e-mail of a user's id, whatever is in it.
func emailOf(user string) string {
	if strings.Contains(user, "@") {
		return user
	}
	local := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
			return r
		}
		return -1
	}, strings.ToLower(user))
	if local == "" {
		local = "demo"
	}
	return local[:min(len(local), 64)] + "@example.com"
}

// SampleEvent is a webhook of an invented life.
type SampleEvent struct {
	Webhook
	Type      string
	ObjectID  string // of the data
	ProductID string // of the life, if one was sold, also where the event does not name it
}

// EventTypes are the types of Polar's events.
func EventTypes() []string { return slices.Clone(eventTypes) }

// Sample plays a short life in a box of its own, at the end of which an event
// happens now, and returns its webhook. All ids are new each time, so that each
// sample is of another customer and of another subscription; all times fit.
func Sample(event string, o SampleOptions) (*SampleEvent, error) {
	l, ok := lives[event]
	if !ok {
		return nil, unknownEvent(event)
	}
	o.fill()
	var random [8]byte
	_, _ = rand.Read(random[:]) // it never fails
	s, e, err := l.play(event, &o, binary.LittleEndian.Uint64(random[:]), o.Now)
	if err == nil {
		// Jobs take seconds. Played again, so much earlier, the event is now: a
		// sample that follows is always newer.
		s, e, err = l.play(event, &o, binary.LittleEndian.Uint64(random[:]), o.Now.Add(o.Now.Sub(e.Timestamp)))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", event, err)
	}
	if e.Data, err = apply(e.Data, o.Set); err != nil {
		return nil, err
	}
	var data struct{ ID string }
	if err := json.Unmarshal(e.Data, &data); err != nil {
		return nil, fmt.Errorf("the id is to be a string: %w", err)
	}
	return &SampleEvent{
		Webhook: Webhook{s.newID(), Version, e.Envelope(Version)},
		Type:    event, ObjectID: data.ID, ProductID: s.product.ID,
	}, nil
}

func unknownEvent(event string) error {
	object, _, _ := strings.Cut(event, ".")
	var same []string
	for _, kind := range eventTypes {
		if strings.HasPrefix(kind, object+".") {
			same = append(same, kind)
		}
	}
	switch near := nearest(event, eventTypes); {
	case near != "":
		return fmt.Errorf("unknown event %.64q: did you mean %s?", event, near)
	case len(same) > 0:
		return fmt.Errorf("unknown event %.64q: there are %s", event, strings.Join(same, ", "))
	}
	return fmt.Errorf("unknown event %.64q: one that exists is subscription.active", event)
}

// nearest is the word that is at most a third away, or none. Of two, it is the
// one as long as it is written: letters are swapped more often than lost.
func nearest(word string, words []string) string {
	if len(word) > 64 {
		return ""
	}
	best, least := "", 4*(len(word)/3+1)
	for _, w := range words {
		d := 4 * distance(strings.ToLower(word), w)
		if len(w) != len(word) {
			d++
		}
		if d < least {
			best, least = w, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0]++
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
