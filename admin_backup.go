package caddypolar

import (
	"encoding/base64"
	"io"
	"net/http"
	"strconv"
	"time"

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
	control := http.NewResponseController(w)
	for { // to who gets less than all, the length tells it
		_ = control.SetWriteDeadline(time.Now().Add(stalled))
		if _, err := io.CopyN(w, c, copyPiece); err != nil {
			break
		}
	}
	_ = control.SetWriteDeadline(time.Time{})
	return nil
}

const (
	// copyPiece of a copy has to be taken in stalled, or who asked for it is taken for gone.
	copyPiece = 1 << 20
	stalled   = time.Minute
)

// digestHeader tells the digest of what is sent (RFC 9530).
const digestHeader = "Content-Digest"

func digest(sha256 []byte) string {
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sha256) + ":"
}
