package polar

import (
	"testing"
	"time"
)

// TestLimiterShares: however many prompt calls wait, the others get a third of
// the budget, and none of it is lost.
func TestLimiterShares(t *testing.T) {
	for _, budget := range []int{30, 120, 400} {
		l := NewLimiter(500, budget)
		now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
		l.accept(now)
		l.queue(1) // there is always one that waits
		went := map[rank]int{}
		const minutes = 10
		for end := now.Add(minutes * time.Minute); now.Before(end); now = now.Add(10 * time.Millisecond) {
			for _, r := range []rank{rankPrompt, rankBackground} {
				if l.ask(now, r).wait <= 0 {
					went[r]++
				}
			}
			l.accept(now)
		}
		prompt, background := went[rankPrompt]/minutes, went[rankBackground]/minutes
		if background < budget*2/10 || prompt < budget/2 || prompt+background > budget || prompt+background < budget*8/10 {
			t.Errorf("of %d a minute %d prompt and %d background calls", budget, prompt, background)
		}
	}
}
