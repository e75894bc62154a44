package cache

import (
	"hash/maphash"
	"sync/atomic"

	"github.com/maypok86/otter/v2"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// memory holds accounts that were read lately, bounded in number. It always
// equals the store: the commit loop replaces what a commit has changed, and a
// reader installs what it has read only if no later commit concerns it.
type memory struct {
	accounts *otter.Cache[string, held]
	seed     maphash.Seed
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
	return &memory{
		accounts: otter.Must(&otter.Options[string, held]{MaximumSize: limit}),
		seed:     maphash.MakeSeed(),
	}
}

func (m *memory) get(user string) (*entitlement.Account, bool) {
	h, ok := m.accounts.GetIfPresent(user)
	return h.account, ok
}

func (m *memory) group(user string) *atomic.Uint64 {
	return &m.touched[maphash.String(m.seed, user)%uint64(len(m.touched))]
}

// replace is the commit loop's: it comes in the order of the commits. Without
// an account it drops what a reader may have installed since.
func (m *memory) replace(accounts map[string]*entitlement.Account, seq uint64) {
	for user, account := range accounts {
		m.group(user).Store(seq)
		if account == nil {
			m.accounts.Invalidate(user)
		} else {
			m.accounts.Set(user, held{account, seq})
		}
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

// forget drops everything, also what readers are about to install from before
// commit seq.
func (m *memory) forget(seq uint64) {
	for i := range m.touched {
		if seq > m.touched[i].Load() {
			m.touched[i].Store(seq)
		}
	}
	m.accounts.InvalidateAll()
}

// SetMemory bounds how many accounts are held in memory: those that were used
// least, lately, make room. The others are read from the file when they come.
func (s *Store) SetMemory(accounts int) { s.memory.accounts.SetMaximum(uint64(accounts)) }

func (m *memory) close() {
	m.accounts.InvalidateAll()
	m.accounts.StopAllGoroutines()
}
