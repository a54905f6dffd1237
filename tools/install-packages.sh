#!/bin/sh
# Installs the Debian packages that building and testing need and that are missing; asks nobody
# anything, and starts no service. Works as root and with sudo.
set -eu

packages="gcc make clang clang-format libc6-dev liburing-dev libjemalloc-dev libck-dev libcmocka-dev
libjansson-dev libedit-dev libisal-dev python3-minimal python3"

missing=""
for package in $packages; do
	status=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true)
	case $status in
	ii*) ;;
	*) missing="$missing $package" ;;
	esac
done
[ -n "$missing" ] || exit 0

echo "installing:$missing"
if [ "$(id -u)" = 0 ]; then
	sudo=""
elif command -v sudo >/dev/null; then
	sudo="sudo"
else
	echo "these packages are missing, and neither root nor sudo is at hand:$missing" >&2
	exit 1
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 # a list of words
if ! { $sudo apt-get update -q &&
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing; } \
	>"$log" 2>&1; then
	cat "$log" >&2
	exit 1
fi
