package box

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
)

func newRandom(seed uint64) *rand.ChaCha8 {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}

// newID makes a UUIDv4.
func (b *Box) newID() string {
	u := b.bytes(16)
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

func (b *Box) bytes(n int) []byte {
	out := make([]byte, n)
	_, _ = b.rng.Read(out)
	return out
}

// newToken makes a token of Polar's shape: a prefix and 43 characters.
func (b *Box) newToken(prefix string) string {
	s := base64.RawURLEncoding.EncodeToString(b.bytes(32))
	return prefix + strings.NewReplacer("-", "a", "_", "b").Replace(s)
}

func (b *Box) newRow() Row {
	return Row{ID: b.newID(), CreatedAt: b.clock.tick()}
}
