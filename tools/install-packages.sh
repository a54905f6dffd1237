#!/bin/sh
# Installs the Debian packages that building and testing need and that are missing; asks nobody
# anything, and starts no service. Works as root and with sudo. With the word "bench", what measuring
# needs as well.
set -eu

packages="gcc make clang clang-format libclang-rt-dev libc6-dev liburing-dev libjemalloc-dev libck-dev
libcmocka-dev libjansson-dev libedit-dev libisal-dev libpcre2-dev libssl-dev libunbound-dev libcurl4-openssl-dev
libcrypt-dev libargon2-dev libidn2-dev libzstd-dev zlib1g-dev libmicrohttpd-dev python3-minimal
python3 zstd swaks nsd unbound ldnsutils e2fsprogs xfsprogs python3-dkim python3-nacl opendkim-tools openssl
curl sslscan python3-jsonschema testssl.sh python3-aiosmtpd libnss-wrapper libgnutls-dane0 libidn12 libnsl2"
# It would replace another mail transfer agent of the machine; without it, its tests are skipped.
[ -e /usr/sbin/sendmail ] || packages="$packages postfix"
[ "${1:-}" != bench ] || packages="$packages gnuplot-nox linux-perf valgrind"

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
policy=/usr/sbin/policy-rc.d
own_policy=""
clean_up() {
	rm -f "$log"
	[ -z "$own_policy" ] || $sudo rm -f "$policy"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM
# Debian's way to say that no package may start a service.
if [ ! -e "$policy" ]; then
	own_policy=yes
	printf '#!/bin/sh\nexit 101\n' >"$log"
	$sudo install -m 755 "$log" "$policy"
fi
case $missing in
*postfix*)
	if command -v debconf-set-selections >/dev/null; then
		echo "postfix postfix/main_mailer_type select No configuration" | $sudo debconf-set-selections
	fi
	;;
esac
# shellcheck disable=SC2086 # a list of words
if ! { $sudo apt-get update -q &&
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing; } \
	>"$log" 2>&1; then
	cat "$log" >&2
	exit 1
fi
