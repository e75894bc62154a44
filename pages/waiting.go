package pages

// Waiting is what a buyer sees who comes back from the checkout.
type Waiting struct {
	// To is where they want to go.
	To string
	// Pending says that what was bought is not open yet.
	Pending bool
	// Again is where the page asks once more. Empty: it has given up. Last is where it
	// does so at last.
	Again, Last string
	// Events is where it is told of changes.
	Events string
}

func (*Waiting) template() string { return "waiting" }
func (*Waiting) policy() string   { return noForms + "; connect-src 'self'" }

// Again is for somebody who comes from another site: cookies that are strict did not
// come along. The page loads itself once more, and then they do.
type Again struct{}

func (*Again) template() string { return "again" }
func (*Again) policy() string   { return noForms }
