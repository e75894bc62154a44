package gateway

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/caddy-polar/caddy-polar/cache"
)

// The notes of what is to be told: how far the journal was read, and what has not
// arrived yet, each by its number.
const (
	noteNotified = "notify"
	noteWaiting  = "notify/"
)

const (
	// giveUpAfter is for how long a message is tried again, and giveUpTries how often at
	// least: this machine can have slept, or the app been away with others to be tried.
	giveUpAfter = 24 * time.Hour
	giveUpTries = 12
	// firstRetry and lastRetry are how long the waits are between two tries, lastProbe
	// while nothing arrives at all.
	firstRetry = 5 * time.Second
	lastRetry  = 15 * time.Minute
	lastProbe  = time.Minute
	// mostWaiting is how many messages wait at most, and as many that were given up.
	// What comes then stays in the journal until there is room.
	mostWaiting = 10_000
)

// message is a change of a subscription that the app is told of.
type message struct {
	Number       uint64         `json:"number"` // of the journal's entry
	User         string         `json:"user"`
	Subscription string         `json:"subscription"`
	At           time.Time      `json:"at"`
	New          bool           `json:"new,omitempty"`
	Status       string         `json:"status"` // after the change
	Changes      []cache.Change `json:"changes,omitempty"`

	Tries   int       `json:"tries"`
	Since   time.Time `json:"since"` // it waits
	Next    time.Time `json:"next"`  // zero: at once
	Error   string    `json:"error,omitempty"`
	GivenUp bool      `json:"givenUp,omitempty"`

	flying bool // a try is under way
}

func (m *message) note() string { return fmt.Sprintf("%s%016x", noteWaiting, m.Number) }

func (m *message) write(notes map[string][]byte) error {
	raw, err := json.Marshal(m)
	notes[m.note()] = raw
	return err
}

// failed notes a try that has failed.
func (m *message) failed(now time.Time, err error) {
	m.Tries++
	m.Error = err.Error()
	m.Next = now.Add(backOff(m.Tries, lastRetry))
	m.GivenUp = m.Tries >= giveUpTries && now.Sub(m.Since) >= giveUpAfter
}

func backOff(tries int, most time.Duration) time.Duration {
	return min(firstRetry<<min(max(tries-1, 0), 12), most)
}

// outbox is what waits to be told: the messages of each user in order. It is not
// safe for concurrent use.
type outbox struct {
	read  uint64 // entries of the journal up to here are told, or wait
	lanes map[string][]*message
	dead  map[uint64]*message // given up
	size  int                 // of all lanes
}

// put adds a message behind the others of its user.
func (o *outbox) put(m *message) {
	if m.GivenUp {
		o.dead[m.Number] = m
		return
	}
	o.lanes[m.User] = append(o.lanes[m.User], m)
	o.size++
}

// pop takes a user's first message out, as it has arrived or was given up.
func (o *outbox) pop(user string) {
	lane := o.lanes[user]
	if o.size--; len(lane) == 1 {
		delete(o.lanes, user)
		return
	}
	o.lanes[user] = lane[1:]
}

// holds says whether a message is still the first of its user.
func (o *outbox) holds(m *message) bool {
	lane := o.lanes[m.User]
	return len(lane) > 0 && lane[0] == m
}

// bury gives a message up. Of too many the oldest is forgotten for good.
func (o *outbox) bury(m *message) (gone *message) {
	o.pop(m.User)
	if len(o.dead) >= mostWaiting {
		for _, d := range o.dead {
			if gone == nil || d.Number < gone.Number {
				gone = d
			}
		}
		delete(o.dead, gone.Number)
	}
	o.dead[m.Number] = m
	return gone
}

// due are the first messages of those users whose turn it is, those that were tried
// least before the others.
func (o *outbox) due(now time.Time, most int) (list []*message) {
	for _, lane := range o.lanes {
		if m := lane[0]; !m.flying && !m.Next.After(now) {
			list = append(list, m)
		}
	}
	slices.SortFunc(list, func(a, b *message) int { return cmp.Or(cmp.Compare(a.Tries, b.Tries), cmp.Compare(a.Number, b.Number)) })
	return list[:min(len(list), most)]
}

// stalest is the message, if there is any, of which nothing was tried for the longest
// time, whether its turn has come or not.
func (o *outbox) stalest() (list []*message) {
	for _, lane := range o.lanes {
		m := lane[0]
		if !m.flying && (list == nil || m.Next.Before(list[0].Next) || m.Next.Equal(list[0].Next) && m.Number < list[0].Number) {
			list = []*message{m}
		}
	}
	return list
}

// hurry makes due what was tried in vain since a moment: the app is there again.
func (o *outbox) hurry(now, since time.Time) {
	for _, lane := range o.lanes {
		m := lane[0]
		if tried := m.Next.Add(-backOff(m.Tries, lastRetry)); m.Tries > 0 && tried.After(since) && m.Next.After(now) {
			m.Next = now
		}
	}
}

// revive makes due all that waits, and puts what was given up back in line.
func (o *outbox) revive(now time.Time) (revived []*message) {
	for _, lane := range o.lanes {
		lane[0].Next = now
	}
	for _, m := range o.dead {
		m.GivenUp, m.Since, m.Tries, m.Next = false, now, 0, now
		revived = append(revived, m)
	}
	clear(o.dead)
	for _, m := range revived {
		o.put(m)
		lane := o.lanes[m.User]
		first := lane[0]
		slices.SortStableFunc(lane, func(a, b *message) int {
			if a == first && a.flying || b == first && b.flying {
				return 0 // what is under way stays where it is
			}
			return cmp.Compare(a.Number, b.Number)
		})
	}
	return revived
}

// drop takes all of a user out.
func (o *outbox) drop(user string) {
	o.size -= len(o.lanes[user])
	delete(o.lanes, user)
	for number, m := range o.dead {
		if m.User == user {
			delete(o.dead, number)
		}
	}
}

// readOutbox is the outbox as it was noted. What cannot be read is left out, and
// counted: it must not keep the rest from being told.
func readOutbox(read []byte, waiting map[string][]byte, now time.Time) (o *outbox, damaged int) {
	o = &outbox{lanes: make(map[string][]*message), dead: make(map[uint64]*message)}
	var err error
	if o.read, err = strconv.ParseUint(string(read), 10, 64); err != nil {
		damaged++
	}
	var list []*message
	for _, raw := range waiting {
		m := new(message)
		if err := json.Unmarshal(raw, m); err != nil || m.User == "" || m.Subscription == "" {
			damaged++
			continue
		}
		// The clock may have been ahead.
		if most := now.Add(lastRetry); m.Next.After(most) {
			m.Next = most
		}
		if m.Since.After(now) {
			m.Since = now
		}
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b *message) int { return cmp.Compare(a.Number, b.Number) })
	for _, m := range list {
		o.put(m)
	}
	return o, damaged
}

// usersNotes are the notes of a user's messages.
func usersNotes(waiting map[string][]byte, user string) map[string][]byte {
	taken := make(map[string][]byte)
	for key, raw := range waiting {
		var m struct {
			User string `json:"user"`
		}
		if json.Unmarshal(raw, &m) == nil && m.User == user {
			taken[key] = nil
		}
	}
	return taken
}
