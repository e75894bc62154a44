#!/usr/bin/env bash
# Runs every fuzz target for a while, two at a time, and says how much each has tried:
#
#   docs/fuzz.sh [time, default 10m] [targets, a regular expression]
#
# What fails is kept in testdata/fuzz of its package, as a test from then on.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOFLAGS=${GOFLAGS:--buildvcs=false} FUZZ_TIME=${1:-10m} FUZZ_WORK FUZZ_CACHE
FUZZ_CACHE=$(go env GOCACHE)/fuzz/caddy-polar
FUZZ_WORK=$(mktemp -d)
trap 'rm -rf "$FUZZ_WORK"' EXIT

fuzz() {
	local package=$1 target=$2 log=$FUZZ_WORK/$1-$2.log
	mkdir -p "$(dirname "$log")"
	# Inputs are made smaller only for a moment, or that is all that is done.
	if ! (cd "$package" && "$FUZZ_WORK/$package/fuzz.test" -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime "$FUZZ_TIME" \
		-test.fuzzminimizetime 10x -test.parallel 1 -test.fuzzcachedir "$FUZZ_CACHE/$package") >"$log" 2>&1; then
		# The engine sometimes takes the end of its own time for a failure; a real one names its input.
		if grep -q 'Failing input' "$log" || ! grep -q 'context deadline exceeded' "$log"; then
			cat "$log"
			return 1
		fi
	fi
	echo "$package $target: $(grep '^fuzz: elapsed' "$log" | tail -n 1)"
}
export -f fuzz

grep -rE '^func Fuzz' --include='*_test.go' . | sed -E 's|^\./||; s|^[^/]*:|./&|; s|/[^/]*:func ([A-Za-z0-9]+).*| \1|' |
	grep -E " .*(${2:-.})" | sort >"$FUZZ_WORK/targets"
for package in $(cut -d ' ' -f 1 "$FUZZ_WORK/targets" | uniq); do
	go test -c -fuzz . -o "$FUZZ_WORK/$package/fuzz.test" "./$package"
done
xargs -P 2 -L 1 bash -c 'fuzz "$1" "$2"' fuzz <"$FUZZ_WORK/targets"
