package cache

// Keep remembers something for as long as the process has the store: over
// reloads, and not over restarts. Nothing is written to disk.
func (s *Store) Keep(key string, value any) { s.kept.Store(key, value) }

// KeepFirst is Kept, or keeps a value if nothing was kept yet.
func (s *Store) KeepFirst(key string, value any) any {
	kept, _ := s.kept.LoadOrStore(key, value)
	return kept
}

// Kept is what was kept under a key, or nil.
func (s *Store) Kept(key string) any {
	value, _ := s.kept.Load(key)
	return value
}
