package identity

import "sync/atomic"

// Note is kept with a remembered identity for whoever uses it: what was found out
// about its user need not be looked for when the same token comes again. It is safe
// for concurrent use; a nil Note keeps nothing.
type Note struct{ kept atomic.Pointer[any] }

// Load is what was stored last, nil if nothing was.
func (n *Note) Load() any {
	if n == nil {
		return nil
	}
	if kept := n.kept.Load(); kept != nil {
		return *kept
	}
	return nil
}

// Store keeps something in the place of what was there.
func (n *Note) Store(kept any) {
	if n != nil {
		n.kept.Store(&kept)
	}
}
