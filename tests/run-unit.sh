#!/bin/sh
# Runs unit test programs of one variant, one line each; the output of those that fail follows.
# Usage: run-unit.sh VARIANT PROGRAM...   Writes build/VARIANT/unit.result: "passed failed".
set -u

variant=$1
shift
passed=0
failed=0
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
for program in "$@"; do
	log=$program.log
	if timeout 300 "$program" >"$log" 2>&1; then
		n=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log" | awk '{s += $1} END {print s + 0}')
		passed=$((passed + n))
	else
		f=$(sed -n 's/^\[  FAILED  \] \([a-z_0-9]*\)$/\1/p' "$log" | sort -u | wc -l)
		[ "$f" -gt 0 ] || f=1
		failed=$((failed + f))
		echo "FAILED $variant $(basename "$program"):"
		tail -60 "$log"
	fi
done
mkdir -p "build/$variant"
echo "$passed $failed" >"build/$variant/unit.result"
echo "unit tests, $variant: $passed passed, $failed failed"
[ "$failed" = 0 ]
