#!/usr/bin/env bash
# Runs every fuzz target for a while, two at a time, and says how much each has tried:
#
#   docs/fuzz.sh [time, default 10m] [targets, a regular expression]
#
# What fails is kept by Go in testdata/fuzz of its package, as a test from then on.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOFLAGS=${GOFLAGS:--buildvcs=false} FUZZ_TIME=${1:-10m}

fuzz() {
	local package=$1 target=$2 log
	log=$(mktemp)
	trap 'rm -f "$log"' RETURN
	# Inputs are made smaller only for a moment, or that is all that is done.
	if ! go test -run '^$' -fuzz "^$target\$" -fuzztime "$FUZZ_TIME" -fuzzminimizetime 10x -parallel 1 "$package" >"$log" 2>&1; then
		# The engine sometimes takes the end of its own time for a failure; a real one names its input.
		if grep -q 'Failing input' "$log" || ! grep -q 'context deadline exceeded' "$log"; then
			cat "$log"
			return 1
		fi
	fi
	echo "${package#github.com/caddy-polar/caddy-polar} $target: $(grep '^fuzz: elapsed' "$log" | tail -n 1)"
}
export -f fuzz

for package in $(go list ./...); do
	for target in $(go test -list "${2:-.}" "$package" | grep '^Fuzz' || true); do
		echo "$package $target"
	done
done | xargs -P 2 -L 1 bash -c 'fuzz "$1" "$2"' fuzz
