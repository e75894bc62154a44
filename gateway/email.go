package gateway

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
)

// Linking by e-mail: who shows a token with a verified e-mail becomes the
// customer without external id that has this e-mail, unless they are one, and the
// members of teams that have it. It happens once; the e-mail may change afterwards.

// maxEmail is the longest address that is believed, in bytes.
const maxEmail = 320

// foldEmail is an address in the form in which two are compared: ASCII letters
// in lower case, and nothing else. Other letters are told apart, and dots and
// plus signs count: folding them takes one person for another. ok is false for
// what mail systems read in more than one way.
func foldEmail(address string) (folded string, ok bool) {
	local, domain, _ := strings.Cut(address, "@")
	if local == "" || domain == "" || strings.Contains(domain, "@") || len(address) > maxEmail || !utf8.ValidString(address) {
		return "", false
	}
	ok = true
	folded = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r) || unicode.IsControl(r) || r == utf8.RuneError:
			ok = false
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		}
		return r
	}, address)
	return folded, ok
}

// sameEmail says whether two addresses are one.
func sameEmail(a, b string) bool {
	a, aOK := foldEmail(a)
	b, bOK := foldEmail(b)
	return aOK && bOK && a == b
}

// emailDigest stands for an address in the store. It is zero for what is none.
func emailDigest(keys *cache.Keys, address string) (d cache.EmailDigest) {
	folded, ok := foldEmail(address)
	if !ok {
		return d
	}
	mac := hmac.New(sha256.New, keys.Random)
	mac.Write([]byte("e-mail\x00")) // no user id begins so: see HashUser
	mac.Write([]byte(folded))
	copy(d[:], mac.Sum(nil))
	return d
}

// linkPatience is how long a request waits for its user to be linked.
const linkPatience = 2 * time.Second

// AccountOf is Account for somebody whose token was verified: customers and
// members that have their e-mail become theirs first, where that is switched on.
// It asks the store, and never Polar.
func (g *Gateway) AccountOf(v Visitor) (*entitlement.Account, error) {
	if !v.self() {
		return g.accountInParty(v)
	}
	account, err := g.Account(v.User)
	if err != nil || !g.proves(&v) || isSomebody(account) && g.opensAny(account) {
		return account, err
	}
	linked, err := g.linkByEmail(&v, account)
	if err != nil && g.opensAny(account) {
		return account, nil // what is known goes on counting
	}
	return linked, err
}

// accountInParty is the account of a paying party as one of its people has it:
// seats are a person's, and everything else is shared.
func (g *Gateway) accountInParty(v Visitor) (*entitlement.Account, error) {
	party, err := g.Account(v.User)
	if err != nil {
		return nil, err
	}
	person, err := g.Account(v.Person)
	if err != nil {
		return nil, err
	}
	alone := v.alone()
	if g.proves(&alone) && (len(person.Members) == 0 || !g.opensAny(person)) {
		if person, err = g.linkMembers(&alone, person); err != nil {
			return nil, err
		}
	}
	return party.SeenBy(person), nil
}

// linkAgain is the account after another look at what the e-mail can link, for
// who is somebody already.
func (g *Gateway) linkAgain(v *Visitor, a *entitlement.Account) (*entitlement.Account, error) {
	alone := v.alone()
	switch {
	case v.self() && isSomebody(a) && g.proves(v):
		return g.linkByEmail(v, a)
	case v.self() || !g.proves(&alone):
		return a, nil
	}
	person, err := g.Account(v.Person)
	if err != nil {
		return a, err
	}
	linked, err := g.linkMembers(&alone, person)
	if err != nil || linked == person {
		return a, err
	}
	party, err := g.Account(v.User)
	if err != nil {
		return a, err
	}
	return party.SeenBy(linked), nil
}

// proves says whether somebody's e-mail can make a customer theirs.
func (g *Gateway) proves(v *Visitor) bool {
	return g.linkEmail && v.EmailVerified && v.Email != "" && v.self()
}

func ownsCustomer(a *entitlement.Account) bool {
	for i := range a.Customers {
		if c := &a.Customers[i]; c.Own && c.DeletedAt.IsZero() {
			return true
		}
	}
	return false
}

// isSomebody says whether a user is a customer of Polar's, or a member of one.
func isSomebody(a *entitlement.Account) bool { return ownsCustomer(a) || len(a.Members) > 0 }

// has says whether a customer or member is the user's.
func has(a *entitlement.Account, id string) bool {
	return isOwn(a, id) ||
		slices.ContainsFunc(a.Members, func(m entitlement.Member) bool { return m.ID == id })
}

func (g *Gateway) opensAny(a *entitlement.Account) bool {
	rules, now := g.Rules(), g.Now()
	for i := range rules.Plans {
		if a.Opens(i, rules, now) {
			return true
		}
	}
	return false
}

// linkByEmail is the account after what can be linked was linked. Who is a
// customer already is no second one.
func (g *Gateway) linkByEmail(v *Visitor, account *entitlement.Account) (*entitlement.Account, error) {
	return g.linkWhat(v, account, ownsCustomer(account))
}

// linkMembers is linkByEmail for members of teams alone.
func (g *Gateway) linkMembers(v *Visitor, account *entitlement.Account) (*entitlement.Account, error) {
	return g.linkWhat(v, account, true)
}

func (g *Gateway) linkWhat(v *Visitor, account *entitlement.Account, membersOnly bool) (*entitlement.Account, error) {
	keys, err := g.claim()
	if err != nil {
		return nil, err
	}
	link := cache.EmailLink{User: v.User, Digest: emailDigest(keys, v.Email), MembersOnly: membersOnly}
	theirs, others, err := g.store.ByEmail(link)
	if err != nil {
		return nil, err
	}
	theirs = slices.DeleteFunc(theirs, func(id string) bool { return has(account, id) })
	if len(theirs) == 0 && isSomebody(account) {
		return account, nil
	}
	if len(theirs) > 0 {
		// Also when another request has linked them just now: after this its link
		// is in force.
		ctx, cancel := context.WithTimeout(g.life, linkPatience)
		defer cancel()
		if err := g.apply(ctx, &cache.Facts{EmailLinks: []cache.EmailLink{link}}); err != nil {
			return nil, err
		}
		if account, err = g.Account(v.User); err != nil {
			return nil, err
		}
	}
	switch customers := append(theirs, others...); {
	case len(customers) == 0:
	case isSomebody(account):
		g.contested.clear(v.User)
		g.logger.Info("customer or member linked by verified e-mail",
			zap.String("user_hash", g.HashUser(v.User)), zap.Strings("customers", theirs))
	case g.contested.note(v.User, customers[0]): // perhaps another user was faster just now
		g.logger.Warn("a customer with this user's verified e-mail is another user's: the first link stands",
			zap.String("user_hash", g.HashUser(v.User)), zap.String("customer", customers[0]))
	}
	return account, nil
}

// contests are the users whose e-mail has a customer that is somebody else's.
type contests struct {
	mu    sync.Mutex
	users map[string]string // → customer
}

// note says whether that is news. Of more users than toldAtMost nothing is said.
func (c *contests) note(user, customer string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users == nil {
		c.users = make(map[string]string)
	}
	if c.users[user] == customer || len(c.users) >= toldAtMost {
		return false
	}
	c.users[user] = customer
	return true
}

func (c *contests) clear(user string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.users, user)
}

func (c *contests) of(user string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.users[user]
}

// readByEmail reads the customers that an e-mail would link, and what they have
// bought: before the first sync the store does not know them.
func (g *Gateway) readByEmail(ctx context.Context, address string) error {
	page, err := g.client.Prompt().ListCustomers(ctx, polar.CustomerFilter{Email: address}, polar.Paging{Limit: 10})
	if err != nil {
		return err
	}
	for i := range page.Items {
		c := &page.Items[i]
		if c.DeletedAt != nil || c.ExternalID != "" || !sameEmail(c.Email, address) {
			continue
		}
		if err := g.learnCustomer(ctx, polar.Answer[polar.CustomerProfile]{Item: *c, AsOf: page.AsOf}); err != nil {
			return err
		}
		if err := g.readCustomer(ctx, c.ID); err != nil {
			return err
		}
	}
	return nil
}

// forgetEmails removes what linking by e-mail has left behind, once it is
// switched off: from then on nobody is let in by it.
func (g *Gateway) forgetEmails(ctx context.Context) {
	if g.linkEmail {
		return
	}
	err := g.unlearnEmails(ctx)
	removed := 0
	if err == nil {
		removed, err = g.store.ForgetEmails(ctx)
	}
	if err != nil && ctx.Err() == nil {
		g.logger.Error("link email is off, and what it has left behind could not be removed", zap.Error(err))
	}
	if removed > 0 {
		g.logger.Info("link email is off: its links and the digests of e-mails are removed", zap.Int("records", removed))
	}
}

// unlearnEmails takes back that a sync has read e-mails: switched on again, the
// gateway must not believe that it knows them.
func (g *Gateway) unlearnEmails(ctx context.Context) error {
	if kept, ok := g.store.Kept(noteSynced).(SyncReport); ok && kept.Emails {
		kept.Emails = false
		g.store.Keep(noteSynced, kept)
	}
	raw, err := g.store.Note(noteSynced)
	var m syncMemory
	if err != nil || raw == nil || json.Unmarshal(raw, &m) != nil || !m.Emails {
		return err
	}
	m.Emails = false
	if raw, err = json.Marshal(m); err != nil {
		return err
	}
	return g.apply(ctx, &cache.Facts{Notes: map[string][]byte{noteSynced: raw}})
}
