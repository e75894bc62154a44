package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/caddy-polar/caddy-polar/cache/kv"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

var errUnclaimed = errors.New("nobody has claimed the store")

// claimedOnly runs a body in a claimed store. Where buckets are always there it is looked
// at afterwards, so that an engine that asks a server learns at once what else is wanted.
func (s *Store) claimedOnly(tx kv.Tx, body func(kv.Tx) error) error {
	if tx.Bucket(bucketMeta) == nil {
		return errUnclaimed
	}
	err := body(tx)
	other := s.mine(tx)
	if unclaimed := unclaimed(tx); unclaimed != nil {
		return unclaimed
	}
	if other != nil {
		return other
	}
	return err
}

// unclaimed says so of a store that has no header.
func unclaimed(tx kv.Tx) error {
	if readHeader(tx).schema == 0 {
		return errUnclaimed
	}
	return nil
}

// maxBatch is how many changes share one commit at most: it bounds how long
// the first of them waits.
const maxBatch = 512

// change is one call of Apply on its way through the commit loop.
type change struct {
	facts   *Facts
	run     func(*fold) error // instead of facts; it may run more than once
	seals   bool              // it is about whether the store takes changes
	applied Applied
	err     error
	done    chan struct{}
}

// Apply writes facts and returns when they are durable and in force. Facts
// that are known in this or a newer version change nothing. The caller must
// not change the facts afterwards.
func (s *Store) Apply(ctx context.Context, facts *Facts) (Applied, error) {
	c := &change{facts: facts}
	if err := s.submit(ctx, c); err != nil {
		return Applied{}, err
	}
	return c.applied, nil
}

// submit hands a change to the commit loop and waits for it. When it fails, the
// change may still be under way: do not look at what it has brought.
func (s *Store) submit(ctx context.Context, c *change) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := s.start(); err != nil {
		return err
	}
	c.done = make(chan struct{})
	select {
	case s.changes <- c:
	case <-s.stop:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		// It may still be written: saying so twice does no harm.
		return context.Cause(ctx)
	}
}

// commitLoop takes whatever waits, commits it as one transaction with one
// fsync, brings memory up to date in commit order, and releases the callers.
// There is no timer: under load a batch fills while the one before commits.
func (s *Store) commitLoop() {
	defer close(s.stopped)
	batch := make([]*change, 0, maxBatch)
	for {
		select {
		case c := <-s.changes:
			batch = s.more(append(batch[:0], c))
		case <-s.stop:
			return
		}
		s.commit(batch)
		for _, c := range batch {
			close(c.done)
		}
	}
}

// more adds to a batch what else is ready to be written. Those whom the last
// commit has released, or who came with the first change, need the processor
// before they can wait here: they are let run, for as long as that brings many.
// A change that is alone loses only that one turn.
func (s *Store) more(batch []*change) []*change {
	for before := 0; len(batch) >= 2*before; {
		before = len(batch)
		runtime.Gosched()
		for waiting := true; waiting && len(batch) < maxBatch; {
			select {
			case c := <-s.changes:
				batch = append(batch, c)
			default:
				waiting = false
			}
		}
	}
	return batch
}

func (s *Store) commit(batch []*change) {
	history := s.memory.begin()
	w, err := s.write(batch)
	var folding *kv.BodyError
	switch {
	case err == nil:
		if w.accounts != nil {
			s.unwritten.Store(nil)
			if s.engine.Shared() {
				s.news.wrote(w.cursor)
			}
		}
		s.memory.replace(w.accounts, history|w.cursor.Commit)
		s.watchers.tell(w.accounts)
		return
	case errors.As(err, &folding) && len(batch) > 1:
		// One bad record must not keep the others out.
		for i := range batch {
			s.commit(batch[i : i+1])
		}
		return
	case errors.As(err, &folding), s.engine.Shared(): // the news tell what was written after all
	default:
		// Nobody knows what a failed fsync has left on the disk, so what is
		// held in memory may be older than it: read all again, from the file.
		_ = s.engine.Reset()
		s.memory.forget(history | w.cursor.Commit)
	}
	if !errors.Is(err, ErrReplaced) { // that says so itself
		err = fmt.Errorf("writing store %s: %w", s.Path(), err)
	}
	if !errors.As(err, &folding) || errors.Is(err, ErrReplaced) {
		s.unwritten.Store(&failure{err, time.Now()})
	}
	for _, c := range batch {
		c.applied, c.err = Applied{}, err
	}
}

// failure is why something did not go well, and when, or since when.
type failure struct {
	err error
	at  time.Time
}

// Check says why the store cannot be read, or could not be written the last time.
// In the second case that is tried again, though not all the time.
func (s *Store) Check(ctx context.Context) error {
	if err := s.read(func(kv.Tx) error { return nil }); err != nil {
		return err
	}
	switch f := s.unwritten.Load(); {
	case f == nil:
		return nil
	case time.Since(f.at) < openAgain:
		return f.err
	}
	return s.submit(ctx, &change{run: func(f *fold) error {
		f.dirty = true // a commit of nothing
		return nil
	}})
}

// manyTouched is from how many users on a commit no longer reads their accounts
// anew: what a big team has bought concerns all of them, and each can read
// their own when they come.
const manyTouched = 128

// outcome is what came of a commit.
type outcome struct {
	// accounts are those that are different now. Of those who are not in memory it has nil:
	// they are read when they come, and who does not come takes nobody's room. No accounts,
	// not even none: there was nothing to write.
	accounts map[string]*entitlement.Account
	cursor   Cursor // its mark: of shared stores
}

// write folds a batch into one transaction.
func (s *Store) write(batch []*change) (w outcome, err error) {
	began, dirty := time.Now(), false
	err = s.engine.Transact(true, func(tx kv.Tx) (bool, error) {
		err := s.claimedOnly(tx, func(tx kv.Tx) (err error) {
			dirty, w, err = s.foldAll(tx, batch)
			return err
		})
		w.cursor.Commit = tx.Sequence()
		return dirty, err
	})
	if dirty || err != nil {
		s.observe(OpCommit, began, err)
	}
	return w, err
}

// foldAll folds a batch. dirty says that there is something to commit.
func (s *Store) foldAll(tx kv.Tx, batch []*change) (dirty bool, w outcome, err error) {
	f := fold{tx: tx, touched: make(map[string]struct{})}
	closed := sealed(tx)
	for _, c := range batch {
		if closed && !c.seals {
			return false, w, ErrSealed
		}
		if err := c.fold(&f); err != nil {
			return false, w, err
		}
	}
	if !f.dirty {
		return false, w, nil // all of it was known: nothing to sync to disk
	}
	if s.engine.Shared() {
		if w.cursor.Mark, err = tellNews(tx, f.touched); err != nil {
			return false, w, err
		}
	}
	w.accounts = make(map[string]*entitlement.Account, len(f.touched))
	many := len(f.touched) >= manyTouched+len(batch)
	for user := range f.touched {
		if _, held := s.memory.get(user); many || !held {
			w.accounts[user] = nil
			continue
		}
		if w.accounts[user], err = gather(tx, user); err != nil {
			return false, w, err
		}
	}
	return true, w, nil
}

func (c *change) fold(f *fold) (err error) {
	if c.run != nil {
		return c.run(f)
	}
	c.applied, err = f.facts(c.facts)
	return err
}

// Account returns all that concerns a user, from memory if it is there. A user
// that nobody knows has an empty account. The account is shared: do not change
// it.
func (s *Store) Account(user string) (*entitlement.Account, error) {
	if a, ok := s.memory.get(user); ok {
		return a, nil
	}
	var a *entitlement.Account
	var seq uint64
	history := s.memory.begin()
	err := s.read(func(tx kv.Tx) (err error) {
		seq = tx.Sequence()
		a, err = gather(tx, user)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.memory.install(user, a, history|seq)
	return a, nil
}

// read runs a reading transaction of a claimed store. It must be short: pages
// that it could see are not used again before it ends.
func (s *Store) read(body func(kv.Tx) error) error { return s.readFor(OpRead, body) }

// readFor is read for a purpose that is told apart, as it takes longer.
func (s *Store) readFor(op Op, body func(kv.Tx) error) error {
	began := time.Now()
	err := s.engine.Transact(false, func(tx kv.Tx) (bool, error) {
		return false, s.claimedOnly(tx, body)
	})
	s.observe(op, began, err)
	if err != nil {
		return fmt.Errorf("reading store %s: %w", s.Path(), err)
	}
	return nil
}

// Checkout is what is remembered of a checkout, empty for one that nobody has
// told of.
func (s *Store) Checkout(id string) (Checkout, error) {
	var c Checkout
	err := s.read(func(tx kv.Tx) (err error) {
		c, _, err = get(tx, bucketCheckouts, id, checkoutFields)
		return err
	})
	if err != nil {
		return Checkout{}, err
	}
	return c, nil
}

// Subscription is one that is held, empty if it is not.
func (s *Store) Subscription(id string) (v entitlement.Subscription, err error) {
	err = s.read(func(tx kv.Tx) (err error) {
		v, _, err = get(tx, bucketSubscriptions, id, subscriptionFields)
		return err
	})
	return v, err
}

// SubscriptionUser is whose a subscription is, empty if nobody's yet, or if it is
// not held.
func (s *Store) SubscriptionUser(id string) (user string, err error) {
	err = s.read(func(tx kv.Tx) error {
		user = ""
		v, held, err := get(tx, bucketSubscriptions, id, subscriptionFields)
		if err != nil || !held {
			return err
		}
		user, err = subscriptionOwner(tx, &v)
		return err
	})
	return user, err
}

// Notes are all notes whose keys begin so, but for that which is just so.
func (s *Store) Notes(prefix string) (notes map[string][]byte, err error) {
	err = s.read(func(tx kv.Tx) error {
		notes = make(map[string][]byte)
		b := tx.Bucket(bucketNotes)
		if b == nil {
			return errUnclaimed // a file from before there were notes
		}
		for key, value := range b.Range(prefix, prefix, 0) {
			if _, seen := notes[string(key)]; seen {
				return fmt.Errorf("%w: the notes go round", ErrCorrupt) // or it would never end
			}
			if len(key) > len(prefix) {
				notes[string(key)] = bytes.Clone(value)
			}
		}
		return nil
	})
	return notes, err
}

// Note is what was noted last under a key, nil if nothing was.
func (s *Store) Note(key string) (note []byte, err error) {
	err = s.read(func(tx kv.Tx) error {
		b := tx.Bucket(bucketNotes)
		if b == nil {
			return errUnclaimed // a file from before there were notes
		}
		note = bytes.Clone(b.Get(key))
		return nil
	})
	return note, err
}
