package gateway

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-polar/caddy-polar/cache"
)

func (g *Gateway) syncFinding() Finding { return syncFinding(g.syncStatus(), g.client != nil, g.Now()) }

// lateSyncs is how many syncs can have been left out before it is worth a word.
const lateSyncs = 3

// syncFinding is about the last whole sync.
func syncFinding(s SyncStatus, canAsk bool, now time.Time) Finding {
	age := now.Sub(s.Last.Ended)
	never := s.Last.Began.IsZero()
	var f Finding
	switch {
	case !canAsk:
		return found(aboutSync, SeverityUnknown, "there are no syncs: "+noToken, newToken)
	case s.Off:
		f = found(aboutSync, SeverityWarning, "sync is off: what webhooks miss is not mended", "take sync off out, unless it is meant")
	case never && s.Failures > 0:
		f = found(aboutSync, SeverityError, "no sync was whole yet, and the last one has failed: "+sentence(s.Error), "mend what it says; caddy polar sync tries again")
	case never && s.Step != "":
		f = found(aboutSync, SeverityUnknown, fmt.Sprintf("the first sync is under way: step %d of %d", s.StepOf[0], s.StepOf[1]), "wait for its end, and run this again")
	case never:
		f = found(aboutSync, SeverityUnknown, "no sync was whole yet", "wait for the first one, or begin it: caddy polar sync")
	case s.Failures > 0 || age > lateSyncs*s.Every && s.Step == "":
		f = found(aboutSync, SeverityWarning, "the last whole sync was "+rough(age)+" ago", "caddy polar sync begins one, and says why it fails")
		if s.Failures > 0 {
			f.What += ", and it has failed since: " + sentence(s.Error)
		}
		if age > lateSyncs*s.Every {
			f.Severity = SeverityError
		}
	case s.Last.Unreadable > 0:
		f = found(aboutSync, SeverityWarning, fmt.Sprintf("objects of Polar's that the last sync could not read: %d", s.Last.Unreadable), "see the log, and update caddy-polar")
	default: // also one that is late and under way
		f = fine(aboutSync, "the last whole sync was "+rough(age)+" ago")
	}
	if !never {
		f = f.with("last", s.Last.Ended.UTC().Format(time.RFC3339))
	}
	if s.Failures > 0 {
		f = f.with("failures", strconv.Itoa(s.Failures))
	}
	return f
}

func sentence(err error) string {
	if err == nil {
		return "why is not known"
	}
	return err.Error()
}

// rough is a time that has passed, as somebody would say it.
func rough(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "less than a minute"
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

const (
	// hollowSize is from which size on free pages are worth a word.
	hollowSize = 256 << 20
	// slowDisk is how long a write may take: webhooks wait for it.
	slowDisk = 100 * time.Millisecond
	// fewBytes and lowBytes are what must, and should, be left of the disk.
	fewBytes = 64 << 20
	lowBytes = 512 << 20
)

func (s *storeFacts) findings() []Finding {
	switch {
	case s.shared && s.late:
		return []Finding{found(aboutStore, SeverityError, "the store's database does not answer", "check the database, and the network to it").with("path", s.path)}
	case s.shared:
		return []Finding{s.use(), s.size()}
	case s.late:
		all := []Finding{found(aboutStore, SeverityError, "the disk under the store does not answer", "check the disk, or the network that it is on").with("path", s.path)}
		for _, id := range []string{aboutStoreSize, aboutDiskWrite, aboutDiskSpace} {
			all = append(all, found(id, SeverityUnknown, "not checked: the disk does not answer", "see the finding store"))
		}
		return all
	}
	return []Finding{s.use(), s.size(), s.write(), s.space()}
}

func (s *storeFacts) use() Finding {
	if s.err != nil {
		return found(aboutStore, SeverityError, "the store cannot be used: "+s.err.Error(), "do what it says; until then users get 503").with("path", s.path)
	}
	return fine(aboutStore, "the store can be used").with("path", s.path)
}

func (s *storeFacts) size() Finding {
	if s.err != nil {
		return found(aboutStoreSize, SeverityUnknown, "not checked: the store cannot be used", "see the finding store")
	}
	free := int64(s.stats.FreePages) * int64(os.Getpagesize())
	f := fine(aboutStoreSize, "the store is as large as what is in it")
	if s.stats.FileSize >= hollowSize && free > s.stats.FileSize/2 {
		f = found(aboutStoreSize, SeverityWarning, "more than half of the store's file is free pages",
			"nothing, if it is to grow again; else stop Caddy and move the file away: a new one is filled from Polar, without passes and links")
	}
	return f.with("size", bytesOf(uint64(s.stats.FileSize))).with("freePages", bytesOf(uint64(free)))
}

func (s *storeFacts) write() Finding {
	err := s.disk.WriteError
	switch {
	case errors.Is(err, cache.ErrReadOnly):
		return found(aboutDiskWrite, SeverityError, "the disk under the store is read-only", "mount it for writing; a disk that has become read-only by itself is often damaged")
	case errors.Is(err, fs.ErrPermission):
		return found(aboutDiskWrite, SeverityUnknown, "not checked: Caddy's user may not write beside the store", "let Caddy's user write the store's directory")
	case errors.Is(err, fs.ErrNotExist) && s.err != nil:
		return found(aboutDiskWrite, SeverityUnknown, "not checked: the store's directory is not there", "see the finding store")
	case err != nil:
		return found(aboutDiskWrite, SeverityError, "nothing can be written beside the store: "+err.Error(), "check the disk, and what is left of it")
	}
	took := s.disk.Sync.Round(10 * time.Microsecond).String()
	if s.disk.Sync > slowDisk {
		return found(aboutDiskWrite, SeverityWarning, "a small write takes "+took+" to be safe on disk", "put the store on a faster disk, and not on a network's: webhooks wait that long").with("fsync", took)
	}
	return fine(aboutDiskWrite, "a small write is safe on disk in time").with("fsync", took)
}

func (s *storeFacts) space() Finding {
	free := s.disk.Free
	if s.disk.Total == 0 {
		return found(aboutDiskSpace, SeverityUnknown, "not checked: what is left of the disk cannot be asked here", "see yourself that the disk under the store is not full")
	}
	f := fine(aboutDiskSpace, "there is room on the disk under the store")
	switch {
	case free < fewBytes:
		f = found(aboutDiskSpace, SeverityError, "the disk under the store is full but for "+bytesOf(free), "make room, or move the store to a larger disk")
	case free < lowBytes || s.err == nil && free < uint64(s.stats.FileSize)/4:
		f = found(aboutDiskSpace, SeverityWarning, "on the disk under the store there is room for "+bytesOf(free)+" only", "make room, or move the store to a larger disk")
	}
	return f.with("free", bytesOf(free)).with("disk", bytesOf(s.disk.Total))
}

func bytesOf(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

// notifyLate is how long a message waits in good times, and some more.
const notifyLate = 15 * time.Minute

func (g *Gateway) notifyFindings() []Finding {
	if s := g.notifyStatus(); s != nil {
		return []Finding{notifyFinding(s, g.Now())}
	}
	return nil
}

// notifyFinding goes by what waits: nothing is sent to find out.
func notifyFinding(s *NotifyStatus, now time.Time) Finding {
	const try = "see that the app answers 2xx at the address, then: caddy polar notify resend"
	age := now.Sub(s.Oldest)
	f := fine(aboutNotify, "the app has been told of all changes, or is being told")
	switch {
	case !s.Known:
		f = found(aboutNotify, SeverityUnknown, "not known: what waits was not read yet", "run this again; if it stays so, see the log")
	case s.GivenUp > 0:
		f = found(aboutNotify, SeverityError, fmt.Sprintf("messages to the app that were given up after a day of tries: %d", s.GivenUp), try)
	case s.Waiting > 0 && age > notifyLate:
		f = found(aboutNotify, SeverityWarning, "messages to the app wait, the oldest for "+rough(age), try)
	}
	if s.Waiting > 0 {
		f = f.with("waiting", strconv.Itoa(s.Waiting)).with("oldest", s.Oldest.UTC().Format(time.RFC3339)).with("error", printable(s.Error, excerptLength))
	}
	return f.with("to", s.To)
}

func (s *Surroundings) findings() []Finding {
	all := []Finding{judged(aboutIdentity, !s.Nobody, "there is a way to find out who asks",
		"neither jwt, session nor user is configured: nobody can be known", "add jwt secret {env.JWT_SECRET}, or another of them")}
	for i := range s.KeySets {
		all = append(all, s.KeySets[i].finding())
	}
	if s.Session != nil {
		f := fine(aboutSession, "the session endpoint answers, and knows nobody without a session")
		if err := s.Session.Err; err != nil {
			f = found(aboutSession, SeverityError, err.Error(), "check session: its address has to be the app's own, and to answer with JSON who is signed in")
		}
		all = append(all, f.with("url", s.Session.Place))
	}
	f := fine(aboutSecrets, "no secret stands literally in the configuration")
	if len(s.Literal) > 0 {
		f = found(aboutSecrets, SeverityWarning, "secrets stand literally in the configuration: "+strings.Join(s.Literal, ", "),
			"write {env.NAME} or {file./path} in their place; {$NAME} puts the value itself there")
	}
	all = append(all, f)
	f = fine(aboutUnavailable, "who cannot be confirmed is refused")
	if s.AllowUnavailable {
		f = found(aboutUnavailable, SeverityWarning, "on_unavailable allow: people are let in whom nobody has confirmed", "take it out, unless an outage is to cost you and not them")
	}
	all = append(all, f)
	f = fine(aboutSettings, "no other setting is a risk")
	if len(s.Risks) > 0 {
		f = found(aboutSettings, SeverityWarning, strings.Join(s.Risks, "; "), "see that this is meant")
	}
	return append(all, f)
}

func (k *KeySet) finding() Finding {
	var f Finding
	switch {
	case k.Err != nil && k.Held > 0:
		f = found(aboutJWKS, SeverityWarning, "the keys cannot be fetched, and the last ones are kept: "+printable(k.Err.Error(), excerptLength), "check the issuer, and the way to it: the kept keys count until max_stale")
	case k.Err != nil:
		f = found(aboutJWKS, SeverityError, "the keys cannot be fetched: "+printable(k.Err.Error(), excerptLength), "check the URL of jwks, the issuer, and the way to it")
	case k.Fitting == 0:
		f = found(aboutJWKS, SeverityError, "none of the keys may verify one of algorithms", "correct algorithms of the jwt block, or see that this is the URL of the right issuer")
	default:
		f = fine(aboutJWKS, "the issuer publishes keys that can be used")
	}
	f = f.with("url", k.Place).with("leftOut", printable(strings.Join(k.Left, ", "), 2*excerptLength))
	if k.Err == nil {
		f = f.with("keys", fmt.Sprintf("%d can be used", k.Fitting))
	}
	if !k.Fetched.IsZero() {
		f = f.with("fetched", k.Fetched.UTC().Format(time.RFC3339))
	}
	return f
}
