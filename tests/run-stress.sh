#!/bin/bash
# Runs stress programs of one variant, each for its share of SECONDS; the output of those that fail
# follows. Usage: run-stress.sh VARIANT SECONDS PROGRAM...   Writes build/VARIANT/stress.result:
# "passed failed".
set -u

variant=$1
seconds=$2
shift 2
passed=0
failed=0
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
for program in "$@"; do
	log=$program.log
	share=$(awk "BEGIN { print $seconds / $# }")
	if "$program" "$share" >"$log" 2>&1; then
		passed=$((passed + 1))
		tail -1 "$log"
	else
		failed=$((failed + 1))
		echo "FAILED $variant $(basename "$program"):"
		tail -60 "$log"
	fi
done
echo "$passed $failed" >"build/$variant/stress.result"
echo "stress, $variant: $passed passed, $failed failed"
[ "$failed" = 0 ]
