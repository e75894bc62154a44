package cache

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/caddy-polar/caddy-polar/cache/kv"
)

// bucketJournal has what has changed, in order: number → entry. New entries come
// to the end, so that they share pages and cost little; those of one object are
// chained, from the record of the object backwards.
var bucketJournal = []byte("journal")

// Entry is one change of one object.
type Entry struct {
	Number  uint64    // of entries, in order
	At      time.Time // when it was written, by Polar's clock
	Source  Source
	Kind    string // subscription, order, grant, refund, customer, member or seat
	ID      string
	New     bool   // it was not held before: then alone there are no Changes
	Status  string // of a subscription or order, after the change
	Changes []Change

	before uint64 // the entry of the same object before this one, zero if there is none
}

// Change is one field that is other than it was. An empty text is a field that says
// nothing.
type Change struct {
	Field         string
	Before, After string
}

// diff collects what is other in two states of an object.
type diff struct{ changes []Change }

func (d *diff) text(field, before, after string) {
	if before != after {
		d.changes = append(d.changes, Change{field, before, after})
	}
}

func (d *diff) time(field string, before, after time.Time) {
	if !before.Equal(after) {
		d.text(field, timeText(before), timeText(after))
	}
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func (d *diff) bool(field string, before, after bool) {
	if before != after {
		d.text(field, fmt.Sprint(before), fmt.Sprint(after))
	}
}

func (d *diff) count(field string, before, after int) {
	if before != after {
		d.text(field, fmt.Sprint(before), fmt.Sprint(after))
	}
}

func entryFields(c *codec, e *Entry) {
	c.time(&e.At)
	c.number(&e.before)
	c.source(&e.Source)
	k, _ := kindNamed(e.Kind)
	n := uint64(k)
	c.number(&n)
	e.Kind = kind(n).String()
	c.string(&e.ID)
	c.text(&e.Status)
	changes := len(e.Changes)
	c.count(&changes)
	if c.reading {
		if changes > len(c.buf) {
			c.fail()
			return
		}
		if e.New = changes == 0; !e.New {
			e.Changes = make([]Change, changes)
		}
	}
	for i := range e.Changes {
		for _, s := range []*string{&e.Changes[i].Field, &e.Changes[i].Before, &e.Changes[i].After} {
			c.text(s)
		}
	}
}

func entryKey(number uint64) string { return string(binary.BigEndian.AppendUint64(nil, number)) }

// enter writes an entry at the end of the journal, and gives its number.
func (f *fold) enter(e *Entry) (uint64, error) {
	b := f.tx.Bucket(bucketJournal)
	number, err := b.NextNumber()
	if err != nil {
		return 0, err
	}
	f.entered++
	return number, f.put(b, entryKey(number), encode(entryFields, *e))
}

// Object names one that is held, as an Entry does.
type Object struct{ Kind, ID string }

// Told is what is known of how an object came to be as it is.
type Told struct {
	Source  Source  // of the state that is held
	History []Entry // the latest first; what is older than the journal is gone
}

// Told says of some objects where their states come from, and of each no more than
// so many changes. What is not held is left out.
func (s *Store) Told(objects []Object, changes int) (map[Object]Told, error) {
	var out map[Object]Told
	err := s.read(func(tx kv.Tx) error {
		out = make(map[Object]Told, len(objects))
		journal := tx.Bucket(bucketJournal)
		for _, object := range objects {
			k, known := kindNamed(object.Kind)
			if !known {
				continue
			}
			raw := tx.Bucket(bucketOf(k)).Get(object.ID)
			if raw == nil {
				continue
			}
			o, _, err := cutOrigin(raw)
			if err != nil {
				return err
			}
			told := Told{Source: o.Source}
			if told.History, err = chain(journal, o.entry, changes); err != nil {
				return err
			}
			out[object] = told
		}
		return nil
	})
	return out, err
}

func kindNamed(name string) (kind, bool) {
	for _, k := range []kind{kindCustomer, kindSubscription, kindOrder, kindGrant, kindRefund, kindMember, kindSeat} {
		if k.String() == name {
			return k, true
		}
	}
	return 0, false
}

// chain reads an object's entries, from the last one back.
func chain(journal kv.Bucket, number uint64, most int) (list []Entry, err error) {
	for journal != nil && number != 0 && len(list) < most {
		raw := journal.Get(entryKey(number))
		if raw == nil {
			return list, nil // it has expired
		}
		e, err := decode(entryFields, raw)
		if err != nil {
			return nil, err
		}
		if e.before >= number {
			return nil, fmt.Errorf("%w: the journal goes round", ErrCorrupt)
		}
		e.Number = number
		list = append(list, e)
		number = e.before
	}
	return list, nil
}

// Journal reads entries in order, from after a number on, at most so many.
func (s *Store) Journal(after uint64, most int) (list []Entry, err error) {
	err = s.read(func(tx kv.Tx) error {
		list, err = entriesAfter(tx.Bucket(bucketJournal), after, most)
		return err
	})
	return list, err
}

func entriesAfter(journal kv.Bucket, after uint64, most int) (list []Entry, err error) {
	if journal == nil {
		return nil, nil
	}
	for key, raw := range journal.Range(entryKey(after+1), "", most) {
		if len(key) != 8 {
			break
		}
		e, err := decode(entryFields, raw)
		if err != nil {
			return list, err
		}
		e.Number = binary.BigEndian.Uint64(key)
		if e.Number <= after {
			return list, fmt.Errorf("%w: the journal is out of order", ErrCorrupt) // or it would never end
		}
		after = e.Number
		list = append(list, e)
	}
	return list, nil
}

// LastEntry is the number of the journal's last entry, zero if there never was one.
func (s *Store) LastEntry() (number uint64, err error) {
	err = s.read(func(tx kv.Tx) error {
		if b := tx.Bucket(bucketJournal); b != nil {
			number = b.Number()
		}
		return nil
	})
	return number, err
}

const (
	// trimAtOnce is how many entries more than come go at a time, so that the old ones
	// go faster than new ones come and none of it takes long.
	trimAtOnce = 4
	// aheadAtMost is how far ahead of its clock a store takes an entry's moment for
	// true: it may have been written by a clock that was wrong.
	aheadAtMost = 24 * time.Hour
)

// trim removes entries from before a moment, the oldest first, if there are any.
func (f *fold) trim(now, before time.Time, unread uint64) error {
	b := f.tx.Bucket(bucketJournal)
	var due []uint64
	for key, raw := range b.Range("", "", trimAtOnce+f.entered) {
		if len(key) != 8 {
			break
		}
		e, err := decode(entryFields, raw)
		if err != nil {
			return err
		}
		number := binary.BigEndian.Uint64(key)
		young := !e.At.Before(before) && !e.At.After(now.Add(aheadAtMost))
		if young || unread != 0 && number >= unread {
			break
		}
		due = append(due, number)
	}
	return f.dropEntries(due)
}

func (f *fold) dropEntries(numbers []uint64) error {
	b := f.tx.Bucket(bucketJournal)
	for _, number := range numbers {
		if err := f.delete(b, entryKey(number)); err != nil {
			return err
		}
	}
	return nil
}

// removeObject takes an object away, with what the journal says of it.
func (f *fold) removeObject(k kind, id string) error {
	if err := f.forgetHistory(k, id); err != nil {
		return err
	}
	return f.remove(bucketOf(k), id)
}

// forgetHistory removes what the journal says of an object, which is about to go
// or to lose its name.
func (f *fold) forgetHistory(k kind, id string) error {
	o, err := originOf(f.tx, k, id)
	if err != nil || o.entry == 0 {
		return err
	}
	list, err := chain(f.tx.Bucket(bucketJournal), o.entry, int(^uint(0)>>1))
	if err != nil {
		return err
	}
	numbers := make([]uint64, len(list))
	for i := range list {
		numbers[i] = list[i].Number
	}
	slices.Sort(numbers)
	return f.dropEntries(numbers)
}

// names says whether an entry tells that something became somebody's, or is theirs no
// more.
func (e *Entry) names(user string) bool {
	return slices.ContainsFunc(e.Changes, func(c Change) bool { return c.Field == fieldUser && (c.Before == user || c.After == user) })
}

// blankEntry takes a user's name out of an entry, which stays in its object's chain.
func (f *fold) blankEntry(user string, number uint64) error {
	journal := f.tx.Bucket(bucketJournal)
	raw := journal.Get(entryKey(number))
	if raw == nil { // gone with its object
		return nil
	}
	e, err := decode(entryFields, raw)
	if err != nil {
		return err
	}
	for i := range e.Changes {
		c := &e.Changes[i]
		if c.Field != fieldUser {
			continue
		}
		for _, name := range []*string{&c.Before, &c.After} {
			if *name == user {
				*name = ""
			}
		}
	}
	return f.put(journal, entryKey(number), encode(entryFields, e))
}
