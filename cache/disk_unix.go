//go:build linux || darwin

package cache

import "syscall"

// diskSpace is what is left of the disk under a directory, and how large that is.
func diskSpace(dir string) (free, total uint64) {
	var s syscall.Statfs_t
	if syscall.Statfs(dir, &s) != nil {
		return 0, 0
	}
	size := uint64(s.Bsize)
	return s.Bavail * size, s.Blocks * size
}
