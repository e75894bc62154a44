package assertion

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"time"
)

const (
	// period is how long a key signs.
	period = 30 * 24 * time.Hour
	// margin is for how long a key is published before it signs, and after.
	margin = period / 2
	// ringSize is how many keys are published: one that signs, and the one before or
	// after it.
	ringSize = 2
)

// Ring is a set of keys that take turns. Each period one is made and the last but one
// goes; it is published for half a period before it signs, signs for one, and is
// published for half of one after. An app that fetched the keys less than that ago has
// the one it needs. A Ring does not change.
type Ring []aged // the oldest first

type aged struct {
	*Key
	made time.Time // to the second
}

// Due says whether Turn would make a key.
func (r Ring) Due(now time.Time) bool {
	return len(r) == 0 || now.Sub(r[len(r)-1].made) >= period
}

// Turn is the ring as it should be now. Nobody may go by it before it is kept.
func (r Ring) Turn(now time.Time) Ring {
	if !r.Due(now) {
		return r
	}
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed) // never fails (crypto/rand)
	kept := r[max(0, len(r)-ringSize+1):]
	return append(append(make(Ring, 0, ringSize), kept...), aged{NewKey(seed), now.Truncate(time.Second)})
}

// Keys are those of the ring, which is not empty. The newest signs that has been
// published for long enough, or else the oldest: at a first start, or with a clock that
// was set back.
func (r Ring) Keys(now time.Time) Keys {
	k := Keys{Signing: r[0].Key, Published: make([]*Key, len(r))}
	for i, key := range r {
		k.Published[i] = key.Key
		if now.Sub(key.made) >= margin {
			k.Signing = key.Key
		}
	}
	return k
}

// ErrRing says that what was kept is no ring.
var ErrRing = errors.New("the assertion keys in the store are damaged")

// keptSize is that of one kept key: when it was made, and its seed.
const keptSize = 8 + ed25519.SeedSize

// Bytes is the ring as it is kept. It is secret.
func (r Ring) Bytes() []byte {
	raw := make([]byte, 0, keptSize*len(r))
	for _, key := range r {
		raw = binary.BigEndian.AppendUint64(raw, uint64(key.made.Unix()))
		raw = append(raw, key.private.Seed()...)
	}
	return raw
}

// ReadRing reads what Bytes wrote. Nothing is an empty ring.
func ReadRing(raw []byte) (Ring, error) {
	if len(raw)%keptSize != 0 || len(raw) > ringSize*keptSize {
		return nil, ErrRing
	}
	var r Ring
	for ; len(raw) > 0; raw = raw[keptSize:] {
		made := time.Unix(int64(binary.BigEndian.Uint64(raw)), 0)
		r = append(r, aged{NewKey(raw[8:keptSize]), made})
	}
	return r, nil
}
