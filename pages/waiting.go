package pages

// Waiting is what a buyer sees who comes back from the checkout.
type Waiting struct {
	// To is where they want to go.
	To string
	// Pending says that what was bought is not open yet.
	Pending bool
	// Again is where the page asks once more. Empty: it has given up.
	Again string
	// Events is where it is told of changes.
	Events string
}

func (*Waiting) template() string { return "waiting" }
func (*Waiting) policy() string   { return noForms + "; connect-src 'self'" }

// Again is for somebody who comes from another site: cookies that are strict did not
// come along. The page loads the address once more, from here, and then they do.
type Again struct {
	// To is the address that was asked for.
	To string
}

func (*Again) template() string { return "again" }
func (*Again) policy() string   { return noForms }
