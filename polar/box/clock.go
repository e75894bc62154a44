package box

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// clock is the box's time. It stands still, or runs with real time, and can be
// moved forward.
type clock struct {
	mu    sync.Mutex
	now   time.Time
	real  bool
	since time.Time // real time at which now was right
	last  time.Time
}

func newClock(start time.Time, realtime bool) *clock {
	return &clock{now: start.Truncate(time.Microsecond), real: realtime, since: time.Now()}
}

func (c *clock) read() time.Time {
	if c.real {
		return c.now.Add(time.Since(c.since)).Truncate(time.Microsecond)
	}
	return c.now
}

func (c *clock) get() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read()
}

// tick returns a time that no tick has returned before, as good as unique in
// Polar too. A clock that stands still moves by a microsecond.
func (c *clock) tick() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.read()
	if !now.After(c.last) {
		now = c.last.Add(time.Microsecond)
	}
	c.last = now
	if now.After(c.read()) {
		c.now, c.since = now, time.Now()
	}
	return now
}

// forward moves the clock to a time, never back.
func (c *clock) forward(to time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if to.After(c.read()) {
		c.now, c.since = to, time.Now()
	}
}

// task is something that is due at a time. It runs without the box's lock.
type task struct {
	at   time.Time
	seq  int
	soon bool // a background job or a first attempt: Settle waits for it
	run  func()
}

type agenda struct {
	heap taskHeap
	seq  int
	soon int
}

type taskHeap []*task

func (h taskHeap) Len() int { return len(h) }

func (h taskHeap) Less(i, j int) bool {
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	return h[i].seq < h[j].seq
}
func (h taskHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *taskHeap) Push(x any) { *h = append(*h, x.(*task)) }

// Pop implements heap.Interface.
func (h *taskHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}

func (a *agenda) add(at time.Time, soon bool, run func()) {
	a.seq++
	if soon {
		a.soon++
	}
	heap.Push(&a.heap, &task{at: at, seq: a.seq, soon: soon, run: run})
}

func (a *agenda) pop() *task {
	t := heap.Pop(&a.heap).(*task)
	if t.soon {
		a.soon--
	}
	return t
}

// Now returns the time on the box's clock.
func (b *Box) Now() time.Time { return b.clock.get() }

// Advance moves the clock and does on the way what is due, in order: renewals,
// failures, dunning, ends, background jobs, deliveries. It must not be called
// from the receiver of a webhook.
func (b *Box) Advance(d time.Duration) {
	b.drive.Lock()
	defer b.drive.Unlock()
	target := b.Now().Add(d)
	b.runDue(func(t *task) bool { return !t.at.After(target) })
	b.clock.forward(target)
}

// AdvanceTo moves the clock to a time; it never goes back.
func (b *Box) AdvanceTo(t time.Time) { b.Advance(max(0, t.Sub(b.Now()))) }

// Settle moves the clock the few seconds that it takes until background jobs
// have run and every webhook was attempted once.
func (b *Box) Settle() {
	b.drive.Lock()
	defer b.drive.Unlock()
	b.runDue(func(*task) bool { return b.tasks.soon > 0 })
}

func (b *Box) runDue(due func(*task) bool) {
	for {
		b.mu.Lock()
		if len(b.tasks.heap) == 0 || !due(b.tasks.heap[0]) {
			b.mu.Unlock()
			return
		}
		t := b.tasks.pop()
		b.mu.Unlock()
		b.clock.forward(t.at)
		t.run()
	}
}

// Run does what is due as real time passes, until the context ends. It is for
// boxes with Options.Realtime.
func (b *Box) Run(ctx context.Context) {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		b.Advance(0)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// job schedules a transaction; mu is held. Background jobs are enqueued when
// the transaction commits that caused them.
func (b *Box) job(at time.Time, soon bool, do func(*tx)) {
	if soon {
		at = at.Add(b.late)
	}
	b.tasks.add(at, soon, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.transact(do)
	})
}
