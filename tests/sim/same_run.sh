#!/bin/bash
# Two runs of a seed are the same, whatever else differs: the build (release, with sanitizers), how
# many run at a time, and whether anybody reads along. Compares trace hashes.
#
# Usage: same_run.sh SEEDS PROGRAM...     (seeds 1 to SEEDS with each simulate program)
set -u

seeds=$1
shift
failed=0

# The hash of one run; empty when it did not end.
trace() {
	"$@" 2>/dev/null | grep -a '^trace ' | tail -1
}

compare() {
	local what=$1 seed=$2 expected=$3 found=$4
	if [ -z "$found" ] || [ "$found" != "$expected" ]; then
		echo "seed $seed, $what: ${found:-no trace} instead of ${expected:-a trace}"
		failed=1
	fi
}

for ((seed = 1; seed <= seeds; seed++)); do
	expected=$(trace "$1" --seed "$seed")
	compare "again, verbosely" "$seed" "$expected" "$(trace "$1" --seed "$seed" --verbose)"
	for program in "${@:2}"; do
		compare "$program" "$seed" "$expected" "$(trace "$program" --seed "$seed")"
	done
done

# The sums of many runs at a time are those of one at a time, but for the seconds it took.
sums() {
	"$1" --seeds "1..$seeds" --jobs "$2" 2>/dev/null | grep -a ' passed, ' | sed 's/ in [0-9]* s;/;/'
}
compare "--jobs 4" "1..$seeds" "$(sums "$1" 1)" "$(sums "$1" 4)"

exit $failed
