package cache

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-polar/caddy-polar/cache/kv"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// A store that several processes share. Each commit notes whom it concerns, under its
// number; every process reads on from the number that it knows, and drops from memory
// what is no longer so. One of the processes has the lease, and does what is to be done
// once.

const (
	// followEvery is how often the news are asked for.
	followEvery = 200 * time.Millisecond
	// keepNews is of how many commits they are kept. Who was away for longer forgets
	// all that it holds.
	keepNews = 100_000
	// mostNews is how much is read of them at a time. After a commit that alone concerns
	// more all is forgotten.
	mostNews = 50_000
	// trimNews is how many entries more than come go with a commit.
	trimNews = 8

	// leaseRenewed is how often the lease is renewed. It is over for its holder before
	// anybody else takes it, who has to see it unchanged for leaseTaken.
	leaseRenewed = 4 * time.Second
	leaseHeld    = 14 * time.Second
	leaseTaken   = 20 * time.Second

	// hereRenewed is how often a process says that it is there, hereGone how long it may
	// say nothing before it is taken for gone.
	hereRenewed = 30 * time.Second
	hereGone    = 100 * time.Second
)

const (
	keyNewsGone = "news_gone" // the last commit of which news are gone
	keyMark     = "news_mark" // the last commit of which there are news, and its mark
	keyLease    = "lease"     // holder, and a number that grows
	keyHere     = "here/"     // and a process: a number that grows
)

// news is what a process knows of what all have written.
type news struct {
	id [16]byte // this process's, of this store

	heard Cursor // the last commit that memory has heard of
	known bool   // there was such a one

	mu  sync.Mutex
	own map[uint64][]byte // commits of ours, which memory has by itself: number → mark

	// failing is since when the news cannot be read, and why; nil if they can.
	failing atomic.Pointer[failure]

	// The lease, as it was seen last, and since when it is so.
	lease   []byte
	leaseAt time.Time
	renewed time.Time    // when that was last tried
	until   atomic.Int64 // until when it is ours, since start
	start   time.Time

	// Who else is there: their records, and since when these are so.
	here    map[string]seenHere
	told    time.Time    // when this process last said that it is
	sharers atomic.Int64 // how many there are
}

// seenHere is what a process has said of itself, and when that was seen first.
type seenHere struct {
	value string
	at    time.Time
}

// wrote notes a commit of ours.
func (n *news) wrote(c Cursor) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.own == nil {
		n.own = make(map[uint64][]byte)
	}
	n.own[c.Commit] = c.Mark
}

// written are the commits of ours that were not heard of yet.
func (n *news) written() map[uint64][]byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.own)
}

// forgetOwn forgets commits of ours.
func (n *news) forgetOwn(own map[uint64][]byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.DeleteFunc(n.own, func(seq uint64, mark []byte) bool { return bytes.Equal(own[seq], mark) })
}

// Cursor is a commit of which there are news. Its mark is random: an older state of the
// database that came back, and was written to, has another one under its number.
type Cursor struct {
	Commit uint64 `json:"commit"`
	Mark   []byte `json:"mark"`
}

// is says whether two are the same.
func (c Cursor) is(other Cursor) bool {
	return c.Commit == other.Commit && bytes.Equal(c.Mark, other.Mark)
}

// lastNews is the last commit of which there are news.
func lastNews(tx kv.Tx) (c Cursor) {
	if raw := tx.Bucket(bucketMeta).Get(keyMark); len(raw) > 8 {
		c = Cursor{binary.BigEndian.Uint64(raw), bytes.Clone(raw[8:])}
	}
	return c
}

// tellNews notes whom a commit concerns, and marks it.
func tellNews(tx kv.Tx, users map[string]struct{}) (mark []byte, err error) {
	b, seq := tx.Bucket(bucketNews), tx.Sequence()
	var due []string
	var gone uint64
	for key := range b.Range("", "", len(users)+trimNews) {
		if len(key) < 8 {
			continue
		}
		if of := binary.BigEndian.Uint64(key); of+keepNews < seq {
			due, gone = append(due, string(key)), of
		}
	}
	for _, key := range due {
		if err := b.Delete(key); err != nil {
			return nil, err
		}
	}
	if gone > 0 {
		if err := tx.Bucket(bucketMeta).Put(keyNewsGone, []byte(entryKey(gone))); err != nil {
			return nil, err
		}
	}
	for user := range users {
		if err := b.Put(entryKey(seq)+user, nil); err != nil {
			return nil, err
		}
	}
	mark = newKey()[:8]
	if err := b.Put(entryKey(seq), mark); err != nil {
		return nil, err
	}
	return mark, tx.Bucket(bucketMeta).Put(keyMark, append([]byte(entryKey(seq)), mark...))
}

// startFollowing begins to follow the news, once.
func (s *Store) startFollowing() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return ErrClosed
	case s.following != nil:
		return nil
	}
	_, _ = rand.Read(s.news.id[:]) // never fails (crypto/rand)
	if err := s.hear(); err != nil {
		return err
	}
	s.following = make(chan struct{})
	go s.follow(s.following)
	return nil
}

// follow hears the news until the store is about to stop.
func (s *Store) follow(done chan<- struct{}) {
	defer close(done)
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	for {
		s.lead(time.Now())
		select {
		case <-ticker.C:
		case <-s.leaving:
			return
		}
		_ = s.hear() // it is observed
	}
}

// hear reads what was written since the last time, and has memory follow. It is for one
// goroutine.
func (s *Store) hear() error {
	for more := true; more; {
		var err error
		if more, err = s.hearSome(); err != nil {
			return err
		}
	}
	return nil
}

// hearSome is hear for so much as is read at a time.
func (s *Store) hearSome() (more bool, err error) {
	n := &s.news
	var last Cursor
	var upTo uint64
	var missed bool
	var commits []commitNews
	began, own := time.Now(), n.written()
	err = s.engine.Transact(false, func(tx kv.Tx) (bool, error) {
		last, upTo, missed, commits, more = lastNews(tx), tx.Sequence(), !n.known, nil, false
		if n.known && !last.is(n.heard) {
			if missed = newsMissed(tx, n.heard); !missed {
				commits, more = newsAfter(tx, n.heard.Commit)
				missed = more && len(commits) == 0
			}
		}
		return false, s.mine(tx)
	})
	if err != nil {
		n.failing.CompareAndSwap(nil, &failure{err, began})
		s.observe(OpFollow, began, err)
		return false, err
	}
	n.failing.Store(nil)
	if more = more && !missed; more {
		last = commits[len(commits)-1].Cursor
		maps.DeleteFunc(own, func(seq uint64, _ []byte) bool { return seq > last.Commit })
	}
	missed = missed || lost(own, n.heard.Commit, commits)
	if !missed && last.is(n.heard) {
		return false, nil
	}
	s.observe(OpFollow, began, nil)
	if missed {
		s.memory.forgetHistory(upTo)
		s.watchers.tellAll()
		commits = nil
	}
	for _, c := range commits {
		if own[c.Commit] == nil {
			s.memory.replace(c.accounts, s.memory.begin()|c.Commit)
			s.watchers.tell(c.accounts)
		}
	}
	n.forgetOwn(own)
	n.heard, n.known = last, true
	return more, nil
}

// lost says that one of our commits after one that was heard of is not among those that
// there are: an older state of the database came back.
func lost(own map[uint64][]byte, heard uint64, commits []commitNews) bool {
	there := 0
	for _, c := range commits {
		if mark, ours := own[c.Commit]; ours {
			if !bytes.Equal(mark, c.Mark) {
				return true
			}
			there++
		}
	}
	for seq := range own {
		if seq > heard {
			there--
		}
	}
	return there != 0
}

// newsMissed says that news of what was after a commit are gone, or that the commit itself
// is: an older state of the database came back.
func newsMissed(tx kv.Tx, heard Cursor) bool {
	gone := tx.Bucket(bucketMeta).Get(keyNewsGone)
	switch {
	case heard.Commit == 0: // there were none
		return gone != nil
	case len(gone) == 8 && binary.BigEndian.Uint64(gone) >= heard.Commit:
		return true
	}
	return !bytes.Equal(tx.Bucket(bucketNews).Get(entryKey(heard.Commit)), heard.Mark)
}

// commitNews is whom a commit concerns.
type commitNews struct {
	Cursor
	accounts map[string]*entitlement.Account // of which there are none: they are read when they come
}

// newsAfter reads the news of the commits after one, in order. more says that it does not
// read them all: none, if already the first one concerns too many.
func newsAfter(tx kv.Tx, seq uint64) (list []commitNews, more bool) {
	n := 0
	for key, value := range tx.Bucket(bucketNews).Range(entryKey(seq+1), "", mostNews) {
		if n++; len(key) < 8 {
			continue
		}
		of := binary.BigEndian.Uint64(key)
		if len(list) == 0 || list[len(list)-1].Commit != of {
			list = append(list, commitNews{Cursor{Commit: of}, make(map[string]*entitlement.Account)})
		}
		if c := &list[len(list)-1]; len(key) == 8 {
			c.Mark = bytes.Clone(value)
		} else {
			c.accounts[string(key[8:])] = nil
		}
	}
	if more = n == mostNews; more {
		list = list[:max(len(list)-1, 0)] // there may be more of the last one
	}
	return list, more
}

// mine says whether the store is still the one that was claimed.
func (s *Store) mine(tx kv.Tx) error {
	claimed := s.claimed.Load()
	if claimed == nil {
		return nil
	}
	h, random := readHeader(tx), tx.Bucket(bucketMeta).Get(keyRandom)
	if h.schema > schema { // a newer gateway beside this one writes what this one would misread
		return fmt.Errorf("%w: schema %d, this version knows %d", ErrNewerSchema, h.schema, schema)
	}
	if h.gateway != claimed.Gateway || h.server != claimed.Server || !bytes.Equal(random, claimed.MarkKey) {
		return fmt.Errorf("%w, or a new one: it is not the one that this gateway began with: reload the configuration", ErrOtherOwner)
	}
	return nil
}

// Behind is for how long this process could not hear what others have written, and why. It
// goes on with what it knows.
func (s *Store) Behind() (time.Duration, error) {
	f := s.news.failing.Load()
	if f == nil {
		return 0, nil
	}
	return time.Since(f.at), f.err
}

// Shared says that other processes can use the store, too.
func (s *Store) Shared() bool { return s.engine.Shared() }

// Leads says whether this process is the one that does what is to be done once. In a
// store that nobody shares it always is.
func (s *Store) Leads() bool {
	return !s.engine.Shared() || time.Since(s.news.start) < time.Duration(s.news.until.Load())
}

// lead renews the lease, or takes one that nobody has renewed for long. Clocks of
// different machines are not compared: each goes by how long it has seen no change.
func (s *Store) lead(now time.Time) {
	n := &s.news
	if !n.renewed.IsZero() && now.Sub(n.renewed) < leaseRenewed {
		return
	}
	n.renewed = now
	var held []byte
	here := make(map[string]string)
	if err := s.engine.Transact(false, func(tx kv.Tx) (bool, error) {
		meta := tx.Bucket(bucketMeta)
		held = bytes.Clone(meta.Get(keyLease))
		clear(here)
		for key, value := range meta.Range(keyHere, keyHere, 0) {
			here[string(key)] = string(value)
		}
		return false, s.mine(tx)
	}); err != nil {
		if errors.Is(err, ErrNewerSchema) || errors.Is(err, ErrOtherOwner) {
			n.until.Store(0)
		}
		return
	}
	s.countSharers(here, now)
	if !bytes.Equal(held, n.lease) {
		n.lease, n.leaseAt = held, now
	}
	if !bytes.HasPrefix(held, n.id[:]) {
		n.until.Store(0)
		if len(held) > 0 && now.Sub(n.leaseAt) < leaseTaken {
			return
		}
	}
	next := binary.BigEndian.AppendUint64(bytes.Clone(n.id[:]), uint64(now.UnixNano()))
	if s.tried(s.setLease(held, next)) == nil {
		n.lease, n.leaseAt = next, now
		n.until.Store(int64(now.Add(leaseHeld).Sub(n.start)))
	}
}

// countSharers counts who shares the store, says that this process does, and forgets who
// has not said so for long.
func (s *Store) countSharers(here map[string]string, now time.Time) {
	n := &s.news
	var gone []string
	for key, value := range here {
		if seen, again := n.here[key]; !again || seen.value != value {
			n.here[key] = seenHere{value, now}
		} else if now.Sub(seen.at) >= hereGone {
			gone = append(gone, key)
		}
	}
	maps.DeleteFunc(n.here, func(key string, _ seenHere) bool { return here[key] == "" })
	mine := keyHere + hex.EncodeToString(n.id[:])
	others := len(here) - len(gone)
	if here[mine] != "" {
		others--
	}
	n.sharers.Store(int64(others + 1))
	if now.Sub(n.told) < hereRenewed && len(gone) == 0 {
		return
	}
	if s.tried(s.engine.Transact(true, func(tx kv.Tx) (bool, error) {
		meta := tx.Bucket(bucketMeta)
		for _, key := range gone {
			if err := meta.Delete(key); err != nil {
				return false, err
			}
		}
		if err := meta.Put(mine, []byte(entryKey(uint64(now.UnixNano())))); err != nil {
			return false, err
		}
		return true, s.mine(tx)
	})) == nil {
		n.told = now
	}
}

// tried takes down whether the store can be written: a replica, or a user without rights, is
// to be noticed before a webhook comes.
func (s *Store) tried(err error) error {
	switch {
	case err == nil:
		s.unwritten.Store(nil)
	case !errors.Is(err, errLease):
		s.unwritten.Store(&failure{fmt.Errorf("writing store %s: %w", s.Path(), err), time.Now()})
	}
	return err
}

// Unwritten is why the last try to write has failed, nil if it has not.
func (s *Store) Unwritten() error {
	if f := s.unwritten.Load(); f != nil {
		return f.err
	}
	return nil
}

// Sharers is how many processes use the store.
func (s *Store) Sharers() int { return max(int(s.news.sharers.Load()), 1) }

var errLease = errors.New("somebody else has taken the lease")

// setLease changes the lease if it is as it was seen.
func (s *Store) setLease(was, next []byte) error {
	return s.engine.Transact(true, func(tx kv.Tx) (bool, error) {
		meta := tx.Bucket(bucketMeta)
		other := s.mine(tx)
		switch {
		case !bytes.Equal(meta.Get(keyLease), was):
			return false, errLease
		case other != nil:
			return false, other
		case next == nil:
			return true, meta.Delete(keyLease)
		}
		return true, meta.Put(keyLease, next)
	})
}

// resign gives the lease back, if it is ours, and takes leave: nobody has to wait for it.
func (s *Store) resign() {
	_ = s.engine.Transact(true, func(tx kv.Tx) (bool, error) {
		if err := tx.Bucket(bucketMeta).Delete(keyHere + hex.EncodeToString(s.news.id[:])); err != nil {
			return false, err
		}
		return true, s.mine(tx)
	})
	if n := &s.news; s.Leads() && bytes.HasPrefix(n.lease, n.id[:]) {
		n.until.Store(0)
		_ = s.setLease(n.lease, nil)
	}
}
