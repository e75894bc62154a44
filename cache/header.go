package cache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/caddy-polar/caddy-polar/cache/kv"
)

// Owner is whose facts a store holds. A file of another owner is refused: one
// organization's customers must never open another's doors.
type Owner struct {
	// Gateway is the gateway's name.
	Gateway string
	// Server is Polar's base URL: production and sandbox share nothing.
	Server string
	// Organization is Polar's organization id, empty when it is not known yet;
	// then that of the first fact is kept.
	Organization string
	// MarkKey is a key to be remembered together with those of earlier owners,
	// or nil.
	MarkKey []byte
}

// Keys are secrets that live in the store.
type Keys struct {
	// Random was made with the file.
	Random []byte
	// Marks are the mark keys of this and earlier owners, the random key last.
	Marks [][]byte
}

var (
	bucketMeta = []byte("meta")
	bucketKeys = []byte("keys")
)

const (
	keySchema       = "schema"
	keyGateway      = "gateway"
	keyServer       = "server"
	keyOrganization = "organization"
	keyRandom       = "key"
)

type header struct {
	schema                        uint64 // 0: none
	gateway, server, organization string
}

func readHeader(tx kv.Tx) header {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return header{}
	}
	var h header
	h.schema, _ = binary.Uvarint(meta.Get(keySchema))
	h.gateway = string(meta.Get(keyGateway))
	h.server = string(meta.Get(keyServer))
	h.organization = string(meta.Get(keyOrganization))
	return h
}

// Claim opens the store for an owner, and gives a new file its header. It
// fails with a sentence when the store cannot be used or belongs to another.
func (s *Store) Claim(o Owner) (Keys, error) {
	s.engine.Retry()
	var keys Keys
	claimed := false
	err := s.engine.Transact(false, func(tx kv.Tx) (_ bool, err error) {
		claimed, err = claimedBy(tx, o)
		keys = readKeys(tx)
		return false, err
	})
	if err == nil && !claimed {
		err = s.engine.Transact(true, func(tx kv.Tx) (bool, error) {
			if _, err := claimedBy(tx, o); err != nil {
				return false, err
			}
			if err := writeHeader(tx, o); err != nil {
				return false, err
			}
			keys = readKeys(tx)
			return true, nil
		})
	}
	if last := s.lastClaim.Load(); err != nil && errors.Is(err, kv.ErrUnreachable) && last != nil && last.owner.is(o) {
		return last.keys, nil // a configuration is loaded anew: who is known goes on being known
	}
	if err != nil {
		return Keys{}, explain(s.Path(), err)
	}
	s.lastClaim.Store(&claim{o, keys})
	s.engine.Reopened(func(tx kv.Tx) error { return stillClaimed(tx, o) })
	if s.engine.Shared() {
		s.claimed.Store(&Owner{Gateway: o.Gateway, Server: o.Server, MarkKey: keys.Random})
		return keys, s.startFollowing()
	}
	return keys, nil
}

// claim is what came of one.
type claim struct {
	owner Owner
	keys  Keys
}

// is says whether two owners are the same.
func (o *Owner) is(other Owner) bool {
	return o.Gateway == other.Gateway && o.Server == other.Server && o.Organization == other.Organization && bytes.Equal(o.MarkKey, other.MarkKey)
}

// stillClaimed makes sure that a store that is opened again is the one that was claimed.
func stillClaimed(tx kv.Tx, o Owner) error {
	claimed, err := claimedBy(tx, o)
	if err == nil && !claimed {
		err = fmt.Errorf("%w: its header is gone", ErrCorrupt)
	}
	return err
}

// claimedBy says whether the header already says all that the owner does.
func claimedBy(tx kv.Tx, o Owner) (bool, error) {
	h := readHeader(tx)
	switch {
	case h.schema == 0:
		return false, nil
	case h.schema > schema:
		return false, fmt.Errorf("%w: schema %d, this version knows %d", ErrNewerSchema, h.schema, schema)
	case h.gateway != o.Gateway:
		return false, fmt.Errorf("%w: %q, not %q", ErrOtherOwner, h.gateway, o.Gateway)
	case h.server != o.Server:
		return false, fmt.Errorf("%w: it mirrors %s, not %s", ErrOtherOwner, h.server, o.Server)
	case o.Organization != "" && h.organization != "" && h.organization != o.Organization:
		return false, fmt.Errorf("%w: it mirrors organization %s, not %s", ErrOtherOwner, h.organization, o.Organization)
	}
	for _, name := range append([][]byte{bucketKeys}, objectBuckets...) {
		if tx.Bucket(name) == nil {
			return false, nil
		}
	}
	known := len(o.MarkKey) == 0 || tx.Bucket(bucketKeys).Get(string(o.MarkKey)) != nil
	return known && h.schema == schema && (o.Organization == "" || h.organization != ""), nil
}

func writeHeader(tx kv.Tx, o Owner) error {
	meta, err := tx.Create(bucketMeta)
	if err != nil {
		return err
	}
	for _, name := range append([][]byte{bucketKeys}, objectBuckets...) {
		if _, err := tx.Create(name); err != nil {
			return err
		}
	}
	entries := map[string][]byte{
		keySchema:  binary.AppendUvarint(nil, schema),
		keyGateway: []byte(o.Gateway),
		keyServer:  []byte(o.Server),
	}
	if o.Organization != "" {
		entries[keyOrganization] = []byte(o.Organization)
	}
	if meta.Get(keyRandom) == nil {
		entries[keyRandom] = newKey()
	}
	for k, v := range entries {
		if err := meta.Put(k, v); err != nil {
			return err
		}
	}
	if len(o.MarkKey) > 0 {
		return tx.Bucket(bucketKeys).Put(string(o.MarkKey), []byte{1})
	}
	return nil
}

func readKeys(tx kv.Tx) Keys {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return Keys{}
	}
	k := Keys{Random: bytes.Clone(meta.Get(keyRandom))}
	marks := tx.Bucket(bucketKeys)
	if marks == nil {
		return k
	}
	for key := range marks.Range("", "", 0) {
		k.Marks = append(k.Marks, bytes.Clone(key))
	}
	k.Marks = append(k.Marks, k.Random)
	return k
}
