package identity

import "fmt"

// ErrNameless is ErrMissing where somebody is there and cannot be named.
var ErrNameless = fmt.Errorf("%w: the user is there and its name is not: check user_path", ErrMissing)

// Reader reads who somebody is from JSON that is not a token's, by the rules for
// claims: users are the same wherever they come from.
type Reader struct{ block block }

// Paths are where a Reader finds what it reads.
type Paths struct {
	User, Email, EmailVerified string
	// Customer and Manage are CustomerClaims and Manage of a Block.
	Customer []string
	Manage   Manage
}

// NewReader makes a Reader for the values at some paths.
func NewReader(p Paths, prefix string) (*Reader, error) {
	if prefix != "" && !usable(prefix, maxUser-1) {
		return nil, fmt.Errorf("%w: keep it under %d bytes of valid UTF-8 without control characters", ErrPrefix, maxUser)
	}
	payer, err := newPayer(p.Customer, p.Manage)
	if err != nil {
		return nil, err
	}
	return &Reader{block{
		user: newPath(p.User), email: newPath(p.Email), emailVerified: newPath(p.EmailVerified), prefix: prefix, payer: payer,
	}}, nil
}

// Read returns the user and the e-mail. The error is ErrMissing if the object names
// nobody, and ErrInvalid if a name cannot be used: ErrCustomer if it is that of the
// paying party. Numbers must be json.Number.
func (r *Reader) Read(object map[string]any) (Identity, error) {
	if value, _ := r.block.user.in(object); value == nil {
		if r.nameless(object) {
			return Identity{}, ErrNameless
		}
		return Identity{}, ErrMissing
	}
	var id Identity
	if err := r.block.readNames(object, &id); err != nil {
		return Identity{}, err
	}
	id.Email, id.EmailVerified = r.block.readEmail(object)
	return id, nil
}

// nameless reports whether the object that should hold the name holds other things.
func (r *Reader) nameless(object map[string]any) bool {
	steps := r.block.user.steps
	for _, step := range steps[:len(steps)-1] {
		object, _ = object[step].(map[string]any)
	}
	return len(steps) > 1 && len(object) > 0
}

// Usable reports whether a user id found by others is short and clean enough.
func Usable(user string) bool { return usable(user, maxUser) }
