package browsertest

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"
)

// patience is how long anything may take before a test gives up on it.
const patience = 20 * time.Second

// binary is the program under test, built once for all tests.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "caddy-polar-browsertest-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "caddy")
	build := exec.Command("go", "build", "-o", binary, "./cmd/caddy")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building Caddy: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// chromium finds the browser. A test that has none has shown nothing, so it
// fails.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{os.Getenv("CHROMIUM"), "/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome"} {
		if name == "" {
			continue
		}
		path, err := exec.LookPath(name)
		if err == nil {
			return path
		}
		if name == os.Getenv("CHROMIUM") {
			t.Fatalf("there is no browser at %s, which CHROMIUM names", name)
		}
	}
	t.Fatal("this test needs Chromium, and there is none: install it, or name it in CHROMIUM")
	return ""
}

// demo is a running `caddy polar demo`.
type demo struct {
	app, panel string
}

// startDemo runs the command, and checks at the test's end that it leaves
// nothing behind.
func startDemo(t *testing.T) *demo {
	t.Helper()
	home, tmp := t.TempDir(), t.TempDir()
	cmd := exec.Command(binary, "polar", "demo", "--listen", freeAddress(t))
	cmd.Env = []string{"HOME=" + home, "TMPDIR=" + tmp, "PATH=" + os.Getenv("PATH")}
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := new(demo)
	address := regexp.MustCompile(`The (app|panel) +(http\S+)`)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if found := address.FindStringSubmatch(lines.Text()); found != nil {
			if found[1] == "app" {
				d.app = found[2]
			} else {
				d.panel = found[2]
			}
		}
		if strings.HasPrefix(lines.Text(), "Ctrl-C") {
			t.Logf("it says where to click after %s", time.Since(start).Round(time.Millisecond))
			break
		}
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		hurry := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		for lines.Scan() { // to its end, before Wait closes it
		}
		err := cmd.Wait()
		hurry.Stop()
		if err != nil || complaints.Len() > 0 {
			t.Errorf("the demo ends with %v, and has said: %s", err, complaints.String())
		}
		for _, dir := range []string{home, tmp} {
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("the demo leaves %v", left)
			}
		}
	})
	if d.app == "" || d.panel == "" {
		t.Fatal("the demo does not say where to click")
	}
	return d
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprintf("localhost:%d", l.Addr().(*net.TCPAddr).Port)
}

// browser is a Chromium that has never been anywhere.
type browser struct {
	t   *testing.T
	ctx context.Context
}

// startBrowser starts one, with flags like name=value.
func startBrowser(t *testing.T, flags ...string) *browser {
	t.Helper()
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(chromium(t)), chromedp.UserDataDir(t.TempDir()), chromedp.Headless, chromedp.NoSandbox,
		chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
	}
	for _, flag := range []string{
		"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "disable-default-apps",
		"disable-extensions", "disable-dev-shm-usage", "no-proxy-server",
	} {
		options = append(options, chromedp.Flag(flag, true))
	}
	for _, flag := range flags {
		name, value, _ := strings.Cut(flag, "=")
		options = append(options, chromedp.Flag(name, value))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	ctx, stop := chromedp.NewExecAllocator(ctx, options...)
	ctx, _ = chromedp.NewContext(ctx)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // waits until the browser has ended
		stop()
		cancel()
	})
	b := &browser{t, ctx}
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("the browser does not start: %v", err)
	}
	b.listen()
	return b
}

// listen collects what the pages get wrong: scripts that throw, and what their
// policy forbids them.
func (b *browser) listen() {
	var mu sync.Mutex
	var wrong []string
	err := chromedp.Listen(b.ctx, func(event any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			wrong = append(wrong, e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			if strings.Contains(e.Entry.Text, "Content Security Policy") {
				wrong = append(wrong, e.Entry.Text)
			}
		}
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		for _, text := range wrong {
			b.t.Errorf("on a page: %s", text)
		}
	})
}

func (b *browser) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatalf("cannot %s: %v; the page says:\n%s", what, err, b.text())
	}
}

// withoutScripts switches the pages' scripts off.
func (b *browser) withoutScripts() {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	if err != nil {
		b.t.Fatal(err)
	}
}

// goTo is a visitor who types an address.
func (b *browser) goTo(address string) {
	b.t.Helper()
	b.do("go to "+address, chromedp.Navigate(address))
}

func (b *browser) click(selector string) {
	b.t.Helper()
	b.do("click "+selector, chromedp.Click(chromedp.CSS(selector)))
}

// text is what the visitor reads, and where. It is empty between two pages.
func (b *browser) text() string {
	return b.evaluate(`location.href + "\n" + document.body.innerText`)
}

func (b *browser) evaluate(expression string) string {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	text, _ := chromedp.Run(ctx, chromedp.Evaluate[string](expression))
	return text
}

// reads waits until the visitor reads all of that.
func (b *browser) reads(texts ...string) {
	b.t.Helper()
	b.sees(b.text, texts...)
}

// readsIn is reads for a part of the page.
func (b *browser) readsIn(selector string, texts ...string) {
	b.t.Helper()
	b.sees(func() string { return b.evaluate(fmt.Sprintf(`document.querySelector(%q).innerText`, selector)) }, texts...)
}

func (b *browser) sees(look func() string, texts ...string) {
	b.t.Helper()
	for _, text := range texts {
		for deadline := time.Now().Add(patience); !strings.Contains(look(), text); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				b.t.Fatalf("the visitor never reads %q, but:\n%s", text, look())
			}
		}
	}
}

// cookies are all that the browser keeps.
func (b *browser) cookies() []*network.Cookie {
	b.t.Helper()
	result, err := chromedp.CallBrowser(b.ctx, storage.GetCookies, storage.GetCookiesParams{})
	if err != nil {
		b.t.Fatal(err)
	}
	return result.Cookies
}
