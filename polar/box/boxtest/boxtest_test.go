package boxtest

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-polar/caddy-polar/polar/box"
)

func TestStart(t *testing.T) {
	s := Start(t, box.Options{})
	req, _ := http.NewRequest(http.MethodGet, s.URL+"/v1/products/", nil)
	req.Header.Set("Authorization", "Bearer "+s.NewToken())
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Error(res.StatusCode)
	}
	p := s.AddProduct(box.Product{Name: "Pro", Interval: "month", Price: box.Price{Amount: 100}})
	c, err := s.CreateCheckout(box.Checkout{ProductIDs: []string{p.ID}})
	if err != nil || !strings.HasPrefix(c.URL, s.URL+"/checkout/") {
		t.Error(c.URL, err)
	}
}
