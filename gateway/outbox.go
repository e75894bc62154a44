package gateway

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
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
	// giveUpAfter is for how long a message is tried again.
	giveUpAfter = 24 * time.Hour
	// firstRetry and lastRetry are how long the waits are between two tries.
	firstRetry = 5 * time.Second
	lastRetry  = 15 * time.Minute
	// lastProbe is how long the waits are while nothing arrives at all.
	lastProbe = time.Minute
	// mostWaiting is how many messages wait at most. What comes then stays in the
	// journal until there is room.
	mostWaiting = 10_000
)

// message is a change of a subscription that the app is told of.
type message struct {
	Number       uint64         `json:"number"` // of the journal's entry
	User         string         `json:"user"`
	Subscription string         `json:"subscription"`
	At           time.Time      `json:"at"`
	New          bool           `json:"new,omitempty"`
	Changes      []cache.Change `json:"changes,omitempty"`

	Tries   int       `json:"tries"`
	Since   time.Time `json:"since"`           // it waits
	Next    time.Time `json:"next"`            // zero: at once
	Error   string    `json:"error,omitempty"` // why the last one failed
	GivenUp bool      `json:"givenUp,omitempty"`
}

func (m *message) note() string { return fmt.Sprintf("%s%016x", noteWaiting, m.Number) }

// failed notes a try that has failed.
func (m *message) failed(now time.Time, err error) {
	m.Tries++
	m.Error = err.Error()
	m.Next = now.Add(backOff(m.Tries, lastRetry))
	m.GivenUp = now.Sub(m.Since) >= giveUpAfter
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

// due are the first messages of those users whose turn it is, the oldest first.
func (o *outbox) due(now time.Time, most int) (list []*message) {
	for _, lane := range o.lanes {
		if !lane[0].Next.After(now) {
			list = append(list, lane[0])
		}
	}
	slices.SortFunc(list, func(a, b *message) int { return cmp.Compare(a.Number, b.Number) })
	return list[:min(len(list), most)]
}

// stalest is the one message, if there is any, of which nothing was tried for the
// longest time, whether its turn has come or not.
func (o *outbox) stalest() (list []*message) {
	for _, lane := range o.lanes {
		m := lane[0]
		if list == nil || m.Next.Before(list[0].Next) || m.Next.Equal(list[0].Next) && m.Number < list[0].Number {
			list = []*message{m}
		}
	}
	return list
}

// next is when the next one is due. Something waits.
func (o *outbox) next() time.Time { return o.stalest()[0].Next }

// hurry makes all that waits due: the app is there again. With the dead ones it
// says how many of these wait once more.
func (o *outbox) hurry(now time.Time, dead bool) (list []*message) {
	for _, lane := range o.lanes {
		if lane[0].Next.After(now) {
			lane[0].Next = now
		}
	}
	if !dead {
		return nil
	}
	for _, m := range o.dead {
		m.GivenUp, m.Since, m.Tries, m.Next = false, now, 0, now
		list = append(list, m)
	}
	clear(o.dead)
	slices.SortFunc(list, func(a, b *message) int { return cmp.Compare(a.Number, b.Number) })
	for _, m := range list {
		o.put(m)
		lane := o.lanes[m.User]
		slices.SortFunc(lane, func(a, b *message) int { return cmp.Compare(a.Number, b.Number) })
	}
	return list
}

// drop takes all of a user out.
func (o *outbox) drop(user string) (list []*message) {
	list = o.lanes[user]
	o.size -= len(list)
	delete(o.lanes, user)
	for number, m := range o.dead {
		if m.User == user {
			list = append(list, m)
			delete(o.dead, number)
		}
	}
	return list
}

// readOutbox is the outbox as it was noted. fresh says that nothing was.
func readOutbox(read []byte, waiting map[string][]byte) (o *outbox, fresh bool, err error) {
	o = &outbox{lanes: make(map[string][]*message), dead: make(map[uint64]*message)}
	if read != nil {
		if o.read, err = strconv.ParseUint(string(read), 10, 64); err != nil {
			return nil, false, fmt.Errorf("how far the app was told cannot be read: %w", err)
		}
	}
	keys := make([]string, 0, len(waiting))
	for key := range waiting {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, strings.Compare) // by number
	for _, key := range keys {
		m := new(message)
		if err := json.Unmarshal(waiting[key], m); err != nil {
			return nil, false, fmt.Errorf("what the app is to be told cannot be read: %w", err)
		}
		o.put(m)
	}
	return o, read == nil, nil
}
