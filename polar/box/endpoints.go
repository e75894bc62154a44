package box

import (
	"cmp"
	"encoding/base64"
	"slices"
	"strings"
)

// Version is the API version that Polar calls Current.
const Version = "2026-10"

// versions are the API versions that exist: Deprecated, Current and Next.
var versions = []string{"2026-04", Version, "2027-01"}

// formatRaw is the format of endpoints for programs.
const formatRaw = "raw"

// SecretKind says when and by whom a webhook secret was made, which decides
// how it signs.
type SecretKind int

// The kinds of secrets.
const (
	SecretStandard SecretKind = iota // by Polar since 2026-09-08: base64 after whsec_
	SecretWhsec                      // by Polar from 2026-06-29: the whole string
	SecretPolarWHS                   // by Polar before: the whole string
	SecretMerchant                   // by the merchant: the whole string, whatever it looks like
	SecretListen                     // of `polar listen`: the organization's id
)

// Endpoint is a webhook endpoint.
type Endpoint struct {
	Row
	URL, Name  string
	Format     string // raw unless set; the box has no messages in others, and sends none
	Secret     string
	Kind       SecretKind
	Events     []string // none means all
	Enabled    bool
	APIVersion string
	deleted    bool
}

func (e *Endpoint) wants(kind string) bool {
	return e.Enabled && !e.deleted && e.Format == formatRaw && (len(e.Events) == 0 || slices.Contains(e.Events, kind))
}

func (b *Box) newSecret(kind SecretKind) string {
	switch kind {
	case SecretStandard:
		return "whsec_" + base64.StdEncoding.EncodeToString(b.bytes(32))
	case SecretPolarWHS:
		return b.newToken("polar_whs_")
	case SecretListen:
		return strings.ReplaceAll(b.org.ID, "-", "")
	default:
		return b.newToken("whsec_")
	}
}

// AddEndpoint adds an enabled endpoint. A secret is made if none is given.
func (b *Box) AddEndpoint(e Endpoint) Endpoint {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.Secret == "" {
		e.Secret = b.newSecret(e.Kind)
	}
	e.APIVersion, e.Format = cmp.Or(e.APIVersion, Version), cmp.Or(e.Format, formatRaw)
	e.Row, e.Enabled = b.newRow(), true
	b.delivery.endpoints[e.ID] = &e
	b.delivery.order = append(b.delivery.order, e.ID)
	return e
}

// Endpoint returns an endpoint.
func (b *Box) Endpoint(id string) (Endpoint, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.delivery.endpoints[id]
	if e == nil || e.deleted {
		return Endpoint{}, false
	}
	return *e, true
}

// EndpointUpdate is what can change of an endpoint; nil leaves a field alone.
type EndpointUpdate struct {
	URL, Name, Format, APIVersion *string
	Events                        []string
	Enabled                       *bool
}

// UpdateEndpoint changes an endpoint. Nothing is replayed when it is enabled.
func (b *Box) UpdateEndpoint(id string, u EndpointUpdate) (Endpoint, error) {
	return b.changeEndpoint(id, func(e *Endpoint) {
		set(&e.URL, u.URL)
		set(&e.Name, u.Name)
		set(&e.Format, u.Format)
		set(&e.APIVersion, u.APIVersion)
		set(&e.Enabled, u.Enabled)
		if u.Events != nil {
			e.Events = u.Events
		}
	})
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// ResetSecret makes a new secret. There is no overlap: queued attempts use it.
func (b *Box) ResetSecret(id string) (Endpoint, error) {
	return b.changeEndpoint(id, func(e *Endpoint) {
		e.Kind = SecretStandard
		e.Secret = b.newSecret(SecretStandard)
	})
}

// DeleteEndpoint deletes an endpoint and what is queued for it.
func (b *Box) DeleteEndpoint(id string) error {
	_, err := b.changeEndpoint(id, func(e *Endpoint) { e.deleted = true })
	return err
}

func (b *Box) changeEndpoint(id string, do func(*Endpoint)) (Endpoint, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.delivery.endpoints[id]
	if e == nil || e.deleted {
		return Endpoint{}, notFound()
	}
	do(e)
	now := b.clock.tick()
	e.ModifiedAt = &now
	return *e, nil
}
