#!/bin/bash
# Compares two commits: builds both, and measures one case pair by pair (old, new, old, new, ...).
# See --help.
set -euo pipefail

usage() {
	cat <<-'EOF'
	Usage: perf/compare.sh [OPTION]... OLD NEW
	Builds flywheeld of two commits, and prints for each figure of a case both medians, the median
	of the pairs' ratios (new by old), and how many pairs agree on its direction.
	  --case NAME      which case of perf/bench.py (default relay-10k); may be repeated
	  --pairs N        how many pairs (default 5)
	  --quick          small counts, and one pair unless --pairs says otherwise
	The load tools are those of this folder. Builds are kept in build/compare/COMMIT.
	Exit status: 0; 1 when mail was lost, doubled, damaged or refused; 2 for a failure.
	EOF
}

cases=()
options=()
commits=()
while [ $# -gt 0 ]; do
	case $1 in
	--case) cases+=("${2:?}") && shift ;;
	--pairs) options+=(--pairs "${2:?}") && shift ;;
	--quick) options+=(--quick) ;;
	--help) usage && exit 0 ;;
	-*) usage >&2 && exit 2 ;;
	*) commits+=("$1") ;;
	esac
	shift
done
[ ${#commits[@]} = 2 ] || { usage >&2 && exit 2; }
cd "$(dirname "$0")/.."

tree=
clean_up() {
	[ -z "$tree" ] || git worktree remove --force "$tree"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Sets `built` to the folder that has flywheeld of commit $1.
build() {
	local commit
	commit=$(git rev-parse --verify --quiet --short "$1^{commit}") || {
		echo "compare: no commit $1" >&2
		exit 2
	}
	built=build/compare/$commit
	[ -x "$built/flywheeld" ] && return
	echo "compare: building $commit" >&2
	mkdir -p "$built"
	tree=$built/tree
	git worktree add --quiet --detach --force "$tree" "$commit"
	make -s -C "$tree" -j"$(nproc)" VARIANT=release build/release/flywheeld >&2 || exit 2
	mv "$tree/build/release/flywheeld" "$built/flywheeld"
	git worktree remove --force "$tree"
	tree=
}

make -s -j"$(nproc)" programs >&2 || exit 2
build "${commits[0]}"
old=$built
build "${commits[1]}"
python3 perf/bench.py --compare "$old" "$built" ${options[@]+"${options[@]}"} "${cases[@]:-relay-10k}"
