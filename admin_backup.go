package caddypolar

import (
	"encoding/base64"
	"io"
	"net/http"
	"strconv"

	"github.com/caddy-polar/caddy-polar/cache"
)

func adminBackup(c *adminCall) (any, error) {
	stored, err := c.gateway.Backup(c.Context())
	if err != nil {
		return nil, err
	}
	return copyAnswer{stored}, nil
}

// copyAnswer is a copy of the store: its bytes, with what it takes to see that they
// are whole.
type copyAnswer struct{ *cache.Copy }

// answer implements adminAnswer.
func (c copyAnswer) answer(w http.ResponseWriter) error {
	defer c.Close()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(c.Size, 10))
	h.Set(digestHeader, digest(c.SHA256))
	_, _ = io.Copy(w, c) // to who gets less than that, the length tells it
	return nil
}

// digestHeader tells the digest of what is sent (RFC 9530).
const digestHeader = "Content-Digest"

func digest(sha256 []byte) string {
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sha256) + ":"
}
