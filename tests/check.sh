#!/bin/bash
# Everything that `make check` promises, one part after the other, each using all processors; goes on
# after a failure, so that one run tells all. The last line is "N passed, N failed".
set -u

passed=0
failed=0
# An outer make's job server is not ours.
unset MAKEFLAGS MFLAGS
jobs=$(nproc)

part() {
	local name=$1
	shift
	local began=$SECONDS
	if "$@"; then
		passed=$((passed + 1))
		echo "ok   $name ($((SECONDS - began)) s)"
	else
		failed=$((failed + 1))
		echo "FAIL $name ($((SECONDS - began)) s)"
	fi
}

# What the tests of each variant need.
declare -A targets=(
	[release]="programs unit-programs stress-programs build/release/simulate"
	[clang]="programs unit-programs"
	[asan]="programs unit-programs stress-programs build/asan/simulate"
	[fuzz]="fuzz-programs"
	[tsan]="programs unit-programs stress-programs"
)

# Says how a variant is built.
build_command() {
	echo "make -s -j$jobs VARIANT=$1 ${targets[$1]}"
}

unit() {
	local variant=$1 p=0 f=0
	rm -f "build/$variant/unit.result"
	$(build_command "$variant") || return 1
	make -s VARIANT="$variant" unit
	local rc=$?
	read -r p f <"build/$variant/unit.result"
	passed=$((passed + p))
	failed=$((failed + f))
	return $rc
}

# Threads against each other, for a few seconds.
stress() {
	local variant=$1 seconds=$2 p=0 f=0
	rm -f "build/$variant/stress.result"
	make -s VARIANT="$variant" SECONDS="$seconds" stress
	local rc=$?
	[ -f "build/$variant/stress.result" ] && read -r p f <"build/$variant/stress.result"
	passed=$((passed + p))
	failed=$((failed + f))
	return $rc
}

# Flow tests mostly wait. Meanwhile the variants named first are built; what is wrong with them is
# said when their own part builds them.
flow() {
	local ahead=$1 variant p=0 f=0 commands=""
	shift
	for variant in $ahead; do
		commands+="$(build_command "$variant") >/dev/null 2>&1; "
	done
	rm -f build/flow.result
	python3 tests/flow/run.py --result build/flow.result --beside "$commands" "$@"
	local rc=$?
	[ -f build/flow.result ] && read -r p f <build/flow.result
	passed=$((passed + p))
	failed=$((failed + f))
	return $rc
}

fuzz() {
	local p=0 f=0
	rm -f build/fuzz/fuzz.result
	make -s fuzz-check
	local rc=$?
	[ -f build/fuzz/fuzz.result ] && read -r p f <build/fuzz/fuzz.result
	passed=$((passed + p))
	failed=$((failed + f))
	return $rc
}

# Simulated worlds, 1 to the given number; one line sums up, and each that fails has its own.
simulator() {
	local variant=$1 seeds=$2
	ASAN_OPTIONS=detect_leaks=1 "build/$variant/simulate" --seeds "1..$seeds"
}

# The load tools are tested by themselves: what they claim, other tests believe.
load_tools() {
	local log=build/load-tools.log
	FLYWHEEL_BUILD=build python3 -m unittest tests/flow/test_perf_tools.py >"$log" 2>&1
	local rc=$?
	[ "$rc" = 0 ] || tail -60 "$log"
	passed=$((passed + $(sed -n 's/^Ran \([0-9]*\) tests.*/\1/p' "$log")))
	return $rc
}

# The simulator's two runs of a seed are one run, and so they are under the sanitizers.
same_run() {
	tests/sim/same_run.sh 20 build/release/simulate build/asan/simulate
}

part "format" make -s format-check
part "headers compile alone" make -s headers
part "thread classes" make -s tsa
part "release: build and unit tests" unit release
part "release: load tools" load_tools
part "release: stress" stress release 10
part "release: simulator" simulator release 2000
part "release: flow tests" flow "clang asan"
part "clang: build and unit tests" unit clang
part "asan: build and unit tests" unit asan
part "asan: stress" stress asan 5
part "asan: simulator" simulator asan 60
part "asan: flow tests" flow "fuzz" --variant asan --short
part "simulator: runs are repeatable" same_run
part "fuzz: build, kept inputs and new ones" fuzz
part "tsan: build and unit tests" unit tsan
part "tsan: stress" stress tsan 15
part "tsan: flow tests" flow "" --variant tsan --short

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
