#!/bin/bash
# Fuzzes one target: run.sh NAME [SECONDS]; without SECONDS until it finds something or is stopped.
# What it finds worth keeping goes to build/fuzz/NAME/corpus, findings to build/fuzz/NAME; the
# corpus in the repository is only read.
set -u

name=$1
seconds=${2:-0}
top=$(cd "$(dirname "$0")/../.." && pwd)
out=$top/build/fuzz/$name
dict=$top/tests/fuzz/$name.dict
options=()
[ -e "$dict" ] && options+=("-dict=$dict")

mkdir -p "$out/corpus"
# For the targets that need a file system: in memory if there is one.
TMPDIR=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
trap 'exit 1' HUP INT TERM
cd "$out" || exit 1
options+=(-timeout=10 -rss_limit_mb=1024 "-artifact_prefix=$out/" -print_final_stats=1)
kept=$top/tests/fuzz/corpus/$name
# The kept inputs as they are; then what is made of them, which is faster when it is short.
"$top/build/fuzz/fuzz_$name" "${options[@]}" -runs=0 "$kept" || exit
"$top/build/fuzz/fuzz_$name" "${options[@]}" -max_len=4096 -max_total_time="$seconds" corpus "$kept"
