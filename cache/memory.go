package cache

import (
	"hash/maphash"
	"sync/atomic"

	"github.com/maypok86/otter/v2"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// maxAccounts is how many whole accounts are held at most. They are for those who
// need more than a note, and are so few that the garbage collector is soon done with
// them.
const maxAccounts = 1 << 14

// memory holds accounts that were read lately, bounded in number. It always
// equals the store: the commit loop replaces what a commit has changed, and a
// reader installs what it has read only if no later commit concerns it.
type memory struct {
	revisions revisions
	notes     notes

	accounts *otter.Cache[string, held]
	seed     maphash.Seed
	// history is in the upper bits of all numbers of commits here. Another one begins when an
	// older state of the store has come back, whose commits have lower numbers.
	history atomic.Uint64
	// touched is the last commit that changed an account, for each of many
	// groups of users. It outlives the accounts, so that a slow reader cannot
	// bring an old one back after it was evicted.
	touched [4096]atomic.Uint64
}

// held is an account as of one commit.
type held struct {
	account *entitlement.Account
	seq     uint64
}

func newMemory(limit int) *memory {
	m := &memory{
		accounts: otter.Must(&otter.Options[string, held]{MaximumSize: min(limit, maxAccounts)}),
		seed:     maphash.MakeSeed(),
	}
	m.revisions.seed = maphash.MakeSeed()
	m.notes.resize(limit)
	return m
}

// historyBits are above the number of a commit.
const historyBits = 48

// begin is for whoever is about to read or write: what is added to the number of the
// commit that is seen or made.
func (m *memory) begin() uint64 { return m.history.Load() << historyBits }

func (m *memory) get(user string) (*entitlement.Account, bool) {
	h, ok := m.accounts.GetIfPresent(user)
	return h.account, ok
}

func (m *memory) group(user string) *atomic.Uint64 {
	return &m.touched[maphash.String(m.seed, user)%uint64(len(m.touched))]
}

// raise brings a number up to another one.
func raise(n *atomic.Uint64, to uint64) {
	for was := n.Load(); was < to && !n.CompareAndSwap(was, to); was = n.Load() {
	}
}

// replace is for whoever has written, or heard of a commit. Those of this process come
// in their order, and without an account so do all. It drops what a reader may have
// installed since.
func (m *memory) replace(accounts map[string]*entitlement.Account, seq uint64) {
	for user, account := range accounts {
		raise(m.group(user), seq)
		if account == nil {
			m.accounts.Invalidate(user)
		} else {
			m.accounts.Compute(user, func(_ held, _ bool) (held, otter.ComputeOp) {
				if m.group(user).Load() > seq { // another process has written since, and it was heard
					return held{}, otter.InvalidateOp
				}
				return held{account, seq}, otter.WriteOp
			})
		}
		if c := m.notes.cache.Load(); c != nil {
			c.Del([]byte(user))
		}
		m.revisions.of(user).Add(1) // last: who reads after it reads what was written
	}
}

// install is the readers': seq is the last commit that the reading saw.
func (m *memory) install(user string, account *entitlement.Account, seq uint64) {
	m.accounts.Compute(user, func(old held, found bool) (held, otter.ComputeOp) {
		if m.group(user).Load() > seq || found && old.seq >= seq {
			return old, otter.CancelOp
		}
		return held{account, seq}, otter.WriteOp
	})
}

// forgetHistory drops everything, also what is under way: what was seen is not, or not
// surely, what the store has now.
func (m *memory) forgetHistory(seq uint64) {
	m.forget(m.history.Add(1)<<historyBits | seq)
}

// forget drops everything, also what readers are about to install from before
// commit seq.
func (m *memory) forget(seq uint64) {
	for i := range m.touched {
		raise(&m.touched[i], seq)
	}
	m.accounts.InvalidateAll()
	for i := range m.revisions.groups {
		m.revisions.groups[i].Add(1)
	}
}

// SetMemory bounds of how many accounts something is held in memory, whole or as a
// note. The others are read from the file when they come.
func (s *Store) SetMemory(accounts int) {
	s.memory.accounts.SetMaximum(uint64(min(accounts, maxAccounts)))
	s.memory.notes.resize(accounts)
}

func (m *memory) close() {
	m.accounts.InvalidateAll()
	m.accounts.StopAllGoroutines()
	m.notes.close()
}
