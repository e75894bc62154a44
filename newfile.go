package caddypolar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
)

// writeNew makes a file that is there whole or not at all, for its owner alone,
// and never takes another's place. fill writes it, under another name beside it;
// its context ends when the program is told to.
func writeNew(ctx context.Context, path string, fill func(context.Context, *os.File) error) (err error) {
	if err := checkNew(path); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		_ = f.Close() // once more, if all went well
		_ = os.Remove(f.Name())
	}()
	if err := fill(ctx, f); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := giveName(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// checkNew says why no file can be made at path.
func checkNew(path string) error {
	switch _, err := os.Lstat(path); {
	case err == nil:
		return fmt.Errorf("%s is there already: choose another name, or move it away", path)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if dir := filepath.Dir(path); !isDir(dir) {
		return fmt.Errorf("%s: there is no directory %s: make it first", path, dir)
	}
	return nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// giveName gives a file its name, unless there is one of that name by now.
func giveName(temporary, path string) error {
	if err := os.Link(temporary, path); err == nil {
		return nil
	}
	if err := checkNew(path); err != nil { // or the file system knows no links
		return err
	}
	return os.Rename(temporary, path)
}

// syncDir makes the names in a directory durable, where the system knows how.
func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
