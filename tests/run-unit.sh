#!/bin/bash
# Runs unit test programs of one variant, as many at a time as there are processors; the output of
# those that fail is shown. Usage: run-unit.sh VARIANT PROGRAM...   Writes build/VARIANT/unit.result:
# "passed failed".
set -u

export variant=$1
shift
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1

# One program, which takes two minutes of CPU at most, so that it hangs after fifteen. Its output goes
# to PROGRAM.log, its "passed failed" to PROGRAM.result; what is to be shown is written at once, so
# that programs do not speak into each other's words.
one() {
	local program=$1 log=$1.log p=0 f=0
	if timeout 900 "$program" >"$log" 2>&1; then
		p=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log" | awk '{s += $1} END {print s + 0}')
	else
		f=$(sed -n 's/^\[  FAILED  \] \([a-z_0-9]*\)$/\1/p' "$log" | sort -u | wc -l)
		[ "$f" -gt 0 ] || f=1
		printf '%s\n' "FAILED $variant $(basename "$program"):
$(grep -vE '^\[ (RUN  |     OK)' "$log")"
	fi
	echo "$p $f" >"$program.result"
}
export -f one

mkdir -p "build/$variant"
rm -f "${@/%/.result}"
printf '%s\n' "$@" | xargs -P "$(nproc)" -I{} bash -c 'one {}'
# A program without a result was not run to its end.
read -r passed failed < <(cat "${@/%/.result}" 2>/dev/null |
	awk -v all=$# '{p += $1; f += $2} END {print p + 0, f + all - NR}')
echo "$passed $failed" >"build/$variant/unit.result"
echo "unit tests, $variant: $passed passed, $failed failed"
[ "$failed" = 0 ]
