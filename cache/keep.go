package cache

// Keep remembers something for as long as the process has the store: over
// reloads, and not over restarts. Nothing is written to disk.
func (s *Store) Keep(key string, value any) { s.kept.Store(key, value) }

// Kept is what was kept under a key, or nil.
func (s *Store) Kept(key string) any {
	value, _ := s.kept.Load(key)
	return value
}
