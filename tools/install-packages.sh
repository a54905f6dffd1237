#!/bin/sh
# Installs the Debian packages that building and testing need and that are missing; asks nobody
# anything, and starts no service. Works as root and with sudo. With the word "bench", what measuring
# needs as well; with "check", the browser that looks at the page of the HTTP listener (65 MB to load,
# 220 MB on disk), without which those tests are skipped, and say so.
set -eu

packages="gcc make git clang clang-format libclang-rt-dev libc6-dev liburing-dev libjemalloc-dev libck-dev
libcmocka-dev libjansson-dev libedit-dev libisal-dev libpcre2-dev libssl-dev libunbound-dev libcurl4-openssl-dev
libcrypt-dev libargon2-dev libidn2-dev libzstd-dev zlib1g-dev libmicrohttpd-dev libsystemd-dev libluajit-5.1-dev libxml2-dev libsqlite3-dev libhiredis-dev python3-minimal
python3 zstd swaks libnet-ssleay-perl nsd unbound ldnsutils e2fsprogs xfsprogs python3-dkim python3-nacl opendkim-tools openssl
curl sslscan python3-jsonschema testssl.sh python3-aiosmtpd redis-server libnss-wrapper libgnutls-dane0 libidn12 libnsl2"
# It would replace another mail transfer agent of the machine; without it, its tests are skipped.
[ -e /usr/sbin/sendmail ] || packages="$packages postfix"
[ "${1:-}" != bench ] || packages="$packages gnuplot-nox linux-perf valgrind"
wanted=""
[ "${1:-}" != check ] || wanted="chromium-headless-shell"

# Those of its arguments that are not installed.
missing_of() {
	for package in "$@"; do
		case $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true) in
		ii*) ;;
		*) printf ' %s' "$package" ;;
		esac
	done
}
# shellcheck disable=SC2086 # lists of words
missing=$(missing_of $packages) wanted=$(missing_of $wanted)
[ -n "$missing$wanted" ] || exit 0

echo "installing:$missing$wanted"
if [ "$(id -u)" = 0 ]; then
	sudo=""
elif command -v sudo >/dev/null; then
	sudo="sudo"
else
	echo "these packages are missing, and neither root nor sudo is at hand:$missing$wanted" >&2
	[ -z "$missing" ]
	exit
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
apt_install() {
	# shellcheck disable=SC2086 # a list of words
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $1 >>"$log" 2>&1
}
$sudo apt-get update -q >"$log" 2>&1 || updated=no
if [ -n "$missing" ] && ! { [ -z "${updated:-}" ] && apt_install "$missing"; }; then
	cat "$log" >&2
	exit 1
fi
if [ -n "$wanted" ] && ! apt_install "$wanted"; then
	tail -5 "$log" >&2
	echo "WARNING: without$wanted its tests are skipped" >&2
fi
