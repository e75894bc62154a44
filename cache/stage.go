package cache

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/caddy-polar/caddy-polar/cache/kv"
)

// bucketStages has what is open for whom, for others to ask a shared store's database
// for: user, plan, number → stage. Nothing is decided by it.
var bucketStages = []byte("stages")

// NoteStages is the note of how far the stages have come, which is about one place.
const NoteStages = "projected"

// Stage is a time for which a plan is open for a user, for one reason. One follows the
// other.
type Stage struct {
	User, Plan  string
	Reason      string
	From, Until time.Time // zero: always, and without end
}

func stageFields(c *codec, v *Stage) {
	c.string(&v.User)
	c.string(&v.Plan)
	c.string(&v.Reason)
	c.time(&v.From)
	c.time(&v.Until)
}

// Users are those after one, up to another one, or to the last one if UpTo is empty.
type Users struct{ After, UpTo string }

// SetStages writes what is open for some users, in place of what was, with notes.
func (s *Store) SetStages(ctx context.Context, of map[string][]Stage, notes map[string][]byte) error {
	return s.submit(ctx, &change{run: func(f *fold) error {
		for user, stages := range of {
			if err := f.setStages(user, stages); err != nil {
				return err
			}
		}
		return f.notes(notes)
	}})
}

// stagesAtOnce is how many are looked through in a transaction: others wait for it.
const stagesAtOnce = 2000

// DropStages drops the stages of a range of users, but for some.
func (s *Store) DropStages(ctx context.Context, among Users, but map[string][]Stage) error {
	for from, more := among.After+"\x01", true; more; {
		var next string
		if err := s.submit(ctx, &change{run: func(f *fold) (err error) {
			next, more, err = f.dropStages(from, among.UpTo, but) // more than once
			return err
		}}); err != nil {
			return err
		}
		from = next
	}
	return nil
}

// dropStages drops some of those from a key on. more says to go on at next.
func (f *fold) dropStages(from, upTo string, but map[string][]Stage) (next string, more bool, err error) {
	b := f.tx.Bucket(bucketStages)
	var gone []string
	read := 0
	for key := range b.Range(from, "", stagesAtOnce) {
		user, _, _ := strings.Cut(string(key), "\x00")
		if upTo != "" && user > upTo {
			break
		}
		if _, stays := but[user]; !stays {
			gone = append(gone, string(key))
		}
		next = string(key) + "\x00"
		read++
	}
	for _, key := range gone {
		if err := f.delete(b, key); err != nil {
			return "", false, err
		}
	}
	return next, read == stagesAtOnce, nil
}

func (f *fold) setStages(user string, stages []Stage) error {
	b, prefix := f.tx.Bucket(bucketStages), user+"\x00"
	gone := make(map[string][]byte)
	for key, value := range b.Range(prefix, prefix, 0) {
		gone[string(key)] = value
	}
	for i := range stages {
		key, value := fmt.Sprintf("%s%s\x00%02d", prefix, stages[i].Plan, i), encode(stageFields, stages[i])
		was, held := gone[key]
		delete(gone, key)
		if held && bytes.Equal(was, value) {
			continue
		}
		if err := f.put(b, key, value); err != nil {
			return err
		}
	}
	for key := range gone {
		if err := f.delete(b, key); err != nil {
			return err
		}
	}
	return nil
}

// News are the users whom the commits after one concern, of a shared store, and the last of
// these commits, after which there may be more. missed says that nobody knows any more.
func (s *Store) News(after Cursor) (users []string, upTo Cursor, missed bool, err error) {
	err = s.read(func(tx kv.Tx) error {
		users, upTo, missed = nil, lastNews(tx), false
		if upTo.is(after) {
			return nil
		}
		if missed = newsMissed(tx, after); missed {
			return nil
		}
		seen := make(map[string]struct{})
		list, more := newsAfter(tx, after.Commit)
		if missed = more && len(list) == 0; missed {
			return nil
		}
		if more {
			upTo = list[len(list)-1].Cursor
		}
		for _, c := range list {
			for user := range c.accounts {
				if _, again := seen[user]; !again {
					seen[user] = struct{}{}
					users = append(users, user)
				}
			}
		}
		return nil
	})
	return users, upTo, missed, err
}

// IndexEntry says that something is a user's.
type IndexEntry struct{ User, Kind, ID string }

// Decode reads a record for people to look at: an object, a Stage or an IndexEntry; nil
// for those of which there is nothing to see.
func Decode(bucket, key string, value []byte) (any, error) {
	switch bucket {
	case string(bucketCustomers):
		return readRecord(key, customerFields, value)
	case string(bucketSubscriptions):
		return readRecord(key, subscriptionFields, value)
	case string(bucketOrders):
		return readRecord(key, orderFields, value)
	case string(bucketStages):
		return decode(stageFields, value)
	case string(bucketByUser):
		user, rest, ok := strings.Cut(key, "\x00")
		if !ok || rest == "" {
			return nil, nil
		}
		return IndexEntry{user, kind(rest[0]).String(), rest[1:]}, nil
	}
	return nil, nil
}
