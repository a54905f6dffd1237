#!/bin/bash
# Measures flywheel on this machine: fwload sends, flywheeld relays, fwsink takes and checks.
#
# In the same run fwload sends straight to fwsink with the same sizes and numbers of sessions: that
# is what the tools and the kernel cost by themselves, and flywheel's rates are given as a share
# of it. Everything is on loopback, ports are free ones, and all that was started is stopped.
#
# See --help. Prints one table; writes the same as JSON to BUILD/bench/.

set -euo pipefail

usage() {
	cat <<-'EOF'
	Usage: perf/bench.sh [OPTION]...
	  --build DIR      where fwload, fwsink and flywheeld are (default build)
	  --messages N     messages per case (default 100000)
	  --patience S     how long a case may take to deliver what was accepted (default 300)
	  --keep           keep configuration, spool and logs in BUILD/bench/
	Without a flywheeld in DIR only the reference cases run.
	Exit status: 0; 1 when mail was lost, doubled, damaged or refused; 2 for a failure.
	EOF
}

fail() {
	echo "bench: $*" >&2
	exit 2
}

build=build
messages=100000
patience=300
keep=no
while [ $# -gt 0 ]; do
	case $1 in
	--build) build=${2:?} && shift ;;
	--messages) messages=${2:?} && shift ;;
	--patience) patience=${2:?} && shift ;;
	--keep) keep=yes ;;
	--help) usage && exit 0 ;;
	*) usage >&2 && exit 2 ;;
	esac
	shift
done
for tool in fwload fwsink; do
	[ -x "$build/$tool" ] || fail "no $tool in $build"
done

mkdir -p "$build/bench"
build=$(realpath "$build")
cd "$(dirname "$0")/.."
work=$(mktemp -d "$build/bench/run.XXXXXX")
load_pid=
sink_pid=
mta_pid=

# Ends the process in the variable named $1: SIGTERM, and SIGKILL if it does not listen.
stop() {
	local pid=${!1}
	[ -n "$pid" ] || return 0
	kill -TERM "$pid" 2>/dev/null || true
	for _ in $(seq 300); do
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.1
	done
	kill -KILL "$pid" 2>/dev/null || true
	wait "$pid" 2>/dev/null || true
	printf -v "$1" ''
}

clean_up() {
	stop load_pid
	stop mta_pid
	stop sink_pid
	[ "$keep" = yes ] || rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

free_port() {
	python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# User and system time of process $1 so far, in clock ticks.
cpu_ticks() {
	# The name in brackets may hold blanks; utime and stime are fields 14 and 15.
	echo $(($(sed 's/.*) //' "/proc/$1/stat" | cut -d' ' -f12,13 | tr ' ' +)))
}

start_sink() {
	rm -f "$work/sink.port" "$work/sink.json"
	"$build/fwsink" --listen 127.0.0.1:0 --port-file "$work/sink.port" \
		--stats-file "$work/sink.json" >"$work/sink.out" &
	sink_pid=$!
	wait_until 10 "fwsink listens" test -s "$work/sink.port"
	sink_port=$(cat "$work/sink.port")
}

# Waits up to $1 seconds for command $3... to succeed; $2 says what for.
wait_until() {
	local end=$((SECONDS + $1)) what=$2
	shift 2
	until "$@"; do
		[ $SECONDS -lt $end ] || fail "in vain: $what"
		sleep 0.1
	done
}

answers() {
	(exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Mail for all recipient domains is delivered to port $1.
write_configuration() {
	cat <<-EOF
	hostname = "bench.example"
	spool { path = "$work/spool"  durability = "synced" }
	log { path = "$work/log" }
	relay_hosts = ( "127.0.0.0/8" )
	control_listener { listen "$work/control" { } }
	esmtp_listener { listen "127.0.0.1:$mta_port" { } }
	EOF
	for i in $(seq 0 99); do
		echo "domain \"d$i.example\" { gateway = \"127.0.0.1:$1\"  max_outbound_connections = 20 }"
	done
}

start_mta() {
	rm -rf "$work/spool" "$work/log"
	mkdir "$work/spool" "$work/log"
	mta_port=$(free_port)
	write_configuration "$1" >"$work/flywheel.conf"
	"$build/flywheeld" --config "$work/flywheel.conf" >"$work/flywheeld.out" 2>&1 &
	mta_pid=$!
	wait_until 30 "flywheeld listens (see $work/flywheeld.out)" mta_is_up
}

mta_is_up() {
	kill -0 "$mta_pid" 2>/dev/null || {
		cat "$work/flywheeld.out" >&2
		fail "flywheeld ended"
	}
	answers "$mta_port"
}

# Looks without starting a process, so that looking costs those who are measured nothing.
sink_has_all() {
	local stats
	stats=$(<"$work/sink.json")
	[[ $stats =~ \"distinct\":\ ([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -ge "$messages" ]
}

# Waits for the mail; what has not come by then counts as lost.
wait_for_sink() {
	local end=$((SECONDS + patience))
	until sink_has_all || [ $SECONDS -ge $end ]; do
		sleep 0.2
	done
}

# $1: port, $2: size, $3: sessions. Whether all was accepted is in the summary.
run_load() {
	"$build/fwload" --to "127.0.0.1:$1" --messages "$messages" --size "$2" --sessions "$3" \
		--domains 100 --json >"$work/load.json" &
	# In the background, because a trap runs only after a command in the foreground has ended.
	load_pid=$!
	wait "$load_pid" || true
	load_pid=
}

# $1: name, $2: kind, $3: ticks of flywheeld, $4: ticks of fwsink. Adds to the results.
record() {
	local load sink=null
	load=$(cat "$work/load.json")
	[ "$2" = accept ] || sink=$(cat "$work/sink.json")
	printf '{"name": "%s", "kind": "%s", "flywheeld_ticks": %d, "fwsink_ticks": %d, ' \
		"$1" "$2" "$3" "$4" >>"$work/cases"
	printf '"load": %s, "sink": %s}\n' "${load//$'\n'/}" "${sink//$'\n'/}" >>"$work/cases"
}

# $1: name, $2: size, $3: sessions.
reference_case() {
	echo "bench: $1" >&2
	start_sink
	run_load "$sink_port" "$2" "$3"
	wait_for_sink
	local ticks
	ticks=$(cpu_ticks "$sink_pid")
	stop sink_pid
	record "$1" reference 0 "$ticks"
}

relay_case() {
	echo "bench: $1" >&2
	start_sink
	start_mta "$sink_port"
	local mta_ticks sink_ticks
	mta_ticks=$(cpu_ticks "$mta_pid")
	run_load "$mta_port" "$2" "$3"
	wait_for_sink
	mta_ticks=$(($(cpu_ticks "$mta_pid") - mta_ticks))
	sink_ticks=$(cpu_ticks "$sink_pid")
	stop mta_pid
	stop sink_pid
	record "$1" relay "$mta_ticks" "$sink_ticks"
}

# Nobody listens where the mail should go: it is accepted, spooled and queued.
accept_case() {
	echo "bench: $1" >&2
	start_mta "$(free_port)"
	local mta_ticks
	mta_ticks=$(cpu_ticks "$mta_pid")
	run_load "$mta_port" "$2" "$3"
	mta_ticks=$(($(cpu_ticks "$mta_pid") - mta_ticks))
	stop mta_pid
	record "$1" accept "$mta_ticks" 0
}

read -r busy _ </proc/loadavg
[ "${busy%.*}" -eq 0 ] || echo "bench: load average $busy: others run here, figures will be low" >&2

reference_case "reference 10 KiB x 20" 10240 20
reference_case "reference 2 KiB x 100" 2048 100
if [ -x "$build/flywheeld" ]; then
	relay_case "relay 10 KiB x 20" 10240 20
	relay_case "relay 2 KiB x 100" 2048 100
	accept_case "accept 10 KiB x 20" 10240 20
	accept_case "accept 2 KiB x 100" 2048 100
else
	echo "bench: no flywheeld in $build: only the reference was measured" >&2
fi
python3 perf/bench_report.py "$work/cases" "$build/bench"
