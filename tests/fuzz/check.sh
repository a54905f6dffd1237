#!/bin/bash
# Each fuzz target runs its kept corpus, then fuzzes for FUZZ_SECONDS (20), as many targets at a time
# as there are processors. One line for each; writes build/fuzz/fuzz.result: "passed failed".
# Usage: check.sh [NAME...]
set -u

cd "$(dirname "$0")/../.." || exit 1
export FUZZ_SECONDS=${FUZZ_SECONDS:-20}

number() {
	sed -n "s/.*$1 *\([0-9][0-9]*\).*/\1/p" "$2" | tail -1
}

# The input on which the target with this log failed, for whoever has only what was printed.
finding() {
	sed -n 's/.*Test unit written to //p' "$1" | while read -r input; do
		echo "$input (base64 -d | zcat):"
		gzip -9nc "$input" | base64
	done
}

# One target; its log is build/fuzz/NAME.log.
one() {
	local name=$1 log=build/fuzz/$1.log kept
	kept=$(find "tests/fuzz/corpus/$name" -type f | wc -l)
	# From the kept corpus only, so that a run does not depend on those before it.
	rm -rf "build/fuzz/$name/corpus"
	if tests/fuzz/run.sh "$name" "$FUZZ_SECONDS" >"$log" 2>&1; then
		printf '%-13s ok: %s kept inputs, %s executions, coverage %s\n' "$name" "$kept" \
			"$(number stat::number_of_executed_units: "$log")" "$(number 'cov:' "$log")"
	else
		echo "$name FAILED:"
		grep -vE 'NEW|REDUCE|pulse|^"' "$log" | tail -60
		finding "$log"
		grep -hE 'does not hold|^SUMMARY' "$log"
		return 1
	fi
}
export -f one number finding

if [ $# = 0 ]; then
	for source in tests/fuzz/fuzz_*.c; do
		source=${source##*/fuzz_}
		set -- "$@" "${source%.c}"
	done
fi
mkdir -p build/fuzz
rm -f build/fuzz/failed
printf '%s\n' "$@" | xargs -P "$(nproc)" -I{} bash -c 'one {} || echo {} >>build/fuzz/failed'
failed=0
[ -f build/fuzz/failed ] && failed=$(wc -l <build/fuzz/failed)
echo "$(($# - failed)) $failed" >build/fuzz/fuzz.result
echo "fuzz targets: $(($# - failed)) passed, $failed failed"
[ "$failed" = 0 ]
