package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// seenIDs are the objects that the lists of one sync had. There can be millions,
// so that UUIDs are held as 16 bytes.
type seenIDs map[[16]byte]struct{}

func (s seenIDs) add(id string) { s[digest(id)] = struct{}{} }

func (s seenIDs) has(id string) bool {
	_, ok := s[digest(id)]
	return ok
}

// digest is an id in 16 bytes: a UUID as it is.
func digest(id string) (d [16]byte) {
	if raw, err := hex.DecodeString(strings.ReplaceAll(id, "-", "")); err == nil && len(raw) == 16 {
		return [16]byte(raw)
	}
	sum := sha256.Sum256([]byte(id))
	return [16]byte(sum[:16])
}
