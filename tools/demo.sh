#!/bin/bash
# The main job, to be watched: flywheeld on the demo configuration, the bundled sink as every
# domain's next hop, 1 000 messages to 50 domains through a real listener, the spool and real
# deliveries; then the console's summary and the first log lines; then a clean stop.
set -eu
cd "$(dirname "$0")/.."

dir=build/demo
messages=${MESSAGES:-1000}
domains=${DOMAINS:-50}
rm -rf "$dir"
mkdir -p "$dir"
pids=()
finish() {
	for pid in "${pids[@]}"; do
		kill "$pid" 2>/dev/null || true
	done
	wait || true
}
trap finish EXIT

build/fwsink --listen 127.0.0.1:2526 --stats-file "$dir/sink.json" >"$dir/sink.out" 2>&1 &
pids+=($!)
build/flywheeld --config config/demo.conf >"$dir/flywheeld.out" 2>&1 &
daemon=$!
pids+=($daemon)
for _ in $(seq 100); do
	build/flywheel -s "$dir/control" version >/dev/null 2>&1 && break
	if ! kill -0 $daemon 2>/dev/null; then
		cat "$dir/flywheeld.out" "$dir/sink.out" >&2
		exit 1
	fi
	sleep 0.1
done
cat "$dir/flywheeld.out"

echo
echo "== $messages messages of 10 KiB to $domains domains, 20 sessions"
build/fwload --to 127.0.0.1:2525 --messages "$messages" --domains "$domains" --size 10240 \
	--sessions 20

delivered() {
	build/flywheel -s "$dir/control" --json counters 'scheduler.*.delivered' |
		sed -n 's/.*"value": *\([0-9]*\).*/\1/p' | awk '{s += $1} END {print s + 0}'
}
for _ in $(seq 300); do
	[ "$(delivered)" -ge "$messages" ] && break
	sleep 0.1
done

echo
echo "== flywheel summary"
build/flywheel -s "$dir/control" summary
echo
echo "== flywheel domain d0.example"
build/flywheel -s "$dir/control" domain d0.example
echo
echo "== flywheel threads"
build/flywheel -s "$dir/control" threads

kill $daemon
wait $daemon
pids=("${pids[0]}")
echo
echo "== first lines of the main log ($dir/log/mainlog)"
head -3 "$dir/log/mainlog"
grep -m 3 '@D@' "$dir/log/mainlog"
echo
received=$(grep -c '@R@' "$dir/log/mainlog")
delivered=$(grep -c '@D@' "$dir/log/mainlog")
kill "${pids[0]}"
wait "${pids[0]}" || true
echo "received $received, delivered $delivered; the sink says: $(tail -1 "$dir/sink.out")"
[ "$received" = "$messages" ] && [ "$delivered" = "$messages" ]
