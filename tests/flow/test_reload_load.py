"""Reload after reload while mail flows, beside the same load without: nobody is sent away, nothing is lost, late or
kept. `make reloads` is the long form."""

import os
import re
import threading
import time

from flow import Daemon, Sink, expect, expect_equal, wait_until
from test_reload import alone, reload

# In the long form, 1 000, delays and memory are judged too, beside the control's.
LONG = "FLOW_RELOADS" in os.environ
RELOADS = int(os.environ.get("FLOW_RELOADS", 120))
MARKS = (100, 500, 1000)
ROUND, SESSIONS = 2000, 8
COUNTS = (1, 4, 2)
# Nobody is dismissed because a scheduler leaves: those that cannot be handed on would fail the test by its patience.
OPTIONS = 'stop_timeout = "10m"\n#here'
ONE_SECOND_US = 1e6


def with_schedulers(text, count):
    return re.sub(r"(?m)^agent scheduler \{.*\}$", f"agent scheduler {{ count = {count} }}", text)


class Phase:
    """A load for as long as act() takes, to a sink of its own."""

    def __init__(self, flow, daemon, name, act):
        self.name, self.rounds = name, []
        self.record = flow.path / f"record-{name}"
        self.sink = Sink(flow, "--record", self.record, "--ids")
        text = re.sub(r'(?m)^gateway = .*$', f'gateway = "127.0.0.1:{self.sink.port}"', daemon.config.read_text())
        daemon.config.write_text(text)
        reload(daemon)
        over = threading.Event()
        thread = threading.Thread(target=self.load, args=(flow, daemon, over))
        thread.start()
        try:
            act()
        finally:
            over.set()
            thread.join()
        daemon.wait_for_rest()

    def load(self, flow, daemon, over):
        # One round more than there were when it was over.
        while not over.is_set() or len(self.rounds) < 2:
            self.rounds.append(flow.load(daemon, "--messages", ROUND, "--sessions", SESSIONS, "--domains", 20,
                                         "--retry", "--connect-retry", 30,
                                         "--id-prefix", f"{self.name}{len(self.rounds)}"))

    def judge(self):
        """Each message was taken at once, on the connections that there were, and arrived once."""
        count = ROUND * len(self.rounds)
        sums = {key: sum(r[key] for r in self.rounds)
                for key in ("accepted", "connections", "temporary_failures", "permanent_failures", "retries",
                            "connect_failures", "connections_lost", "timeouts", "protocol_errors")}
        trouble = {r["first_trouble"] for r in self.rounds} - {""}
        expect_equal(sums, {key: {"accepted": count, "connections": SESSIONS * len(self.rounds)}.get(key, 0)
                            for key in sums}, f"{self.name}: what became of {count} messages ({trouble or 'no trouble'})")
        wait_until(lambda: self.sink.count_now("messages") >= count, "all messages at the sink")
        ids = self.record.read_text().split()
        expect_equal((len(ids), len(set(ids))), (count, count), "messages at the sink, and different ones")

    def delays(self):
        """Milliseconds from MAIL to the last reply, p99.9 of the worst round and maximum; the same to the sink, p99.9 of
        all. Statistics are written twice a second: that of the last message is waited for."""
        count = ROUND * len(self.rounds)
        wait_until(lambda: self.sink.count("messages") >= count, "the sink's statistics")
        accepted = [r["latency_us"] for r in self.rounds]
        arrived = self.sink.stats()["end_to_end_us"]
        return (max(a["p999"] for a in accepted), max(a["max"] for a in accepted), arrived["p999"], arrived["max"])

    def describe(self):
        times = [f"{us / 1000:.0f}" for us in self.delays()]
        return (f"     {self.name}: {ROUND * len(self.rounds)} messages; p99.9 and maximum, ms: "
                f"reply {times[0]}, {times[1]}; arrival {times[2]}, {times[3]}")


def settled_bytes(daemon):
    """Resident memory, when it no longer falls."""
    least, since = daemon.resident_bytes(), 0
    while since < 10:
        time.sleep(1)
        now = daemon.resident_bytes()
        since = 0 if now < least * 0.99 else since + 1
        least = min(least, now)
    return least


def configure(daemon, count, text=""):
    """The configuration with so many schedulers and `text`; not yet reloaded."""
    before = re.sub(r"(?s)#here.*", "", daemon.config.read_text())
    daemon.config.write_text(with_schedulers(before, count) + "#here\n" + text)


def reload_again_and_again(daemon, memory):
    """Options of domains change, schedulers come and go, a third of the files is wrong. How many were right."""
    valid = 0
    for i in range(RELOADS):
        limits = "".join(f'domain "d{n}.example" {{ max_outbound_connections = {1 + (i + n) % 7} }}\n' for n in range(50))
        options = (f'outbound_throttle_messages = "{5000 + i}/sec"\n' if i % 2 else "") + f'host_failure_retry = "{10 + i % 5}s"\n'
        count = COUNTS[i // 4 % len(COUNTS)]
        if i % 3 == 2:
            configure(daemon, count, limits + "nonsense = 1\n")
            daemon.console("config", "reload", fail=True)
        else:
            configure(daemon, count, limits + options)
            expect_equal(reload(daemon)["restart_needed"], False, "whether a restart is needed")
            valid += 1
        if i + 1 in MARKS:
            memory.append((f"after {i + 1}", daemon.resident_bytes()))
    return valid


def control(daemon):
    """As long as a part of the reloads, with as many schedulers as there will be in the end."""
    wait_until(lambda: daemon.counter("scheduler.delivered") >= ROUND * (10 if LONG else 2), "the control's mail")


def test_reloads_under_load(flow):
    # From one on: those that come later are all that leave.
    daemon = Daemon(flow, text=OPTIONS, sink_port=1, schedulers=1)
    memory, valid = [], 0
    for count in (4, 2):
        configure(daemon, count)
        reload(daemon)
    without = Phase(flow, daemon, "without", lambda: control(daemon))
    memory.append(("control", daemon.resident_bytes()))
    level = settled_bytes(daemon) if LONG else 0

    def act():
        nonlocal valid
        valid = reload_again_and_again(daemon, memory)

    phases = without, Phase(flow, daemon, "reloads", act)
    memory.append(("end", daemon.resident_bytes()))
    # Schedulers as in the control.
    configure(daemon, 2)
    reload(daemon)
    alone(daemon)
    for phase in phases:
        phase.judge()
        print(phase.describe())
    refused = {name: value for name, value in daemon.counters("scheduler*").items()
               if re.match(r"scheduler\.(smtp_refused_|rejected|smtp_timeout|transient)", name) and value != 0}
    expect_equal(refused, {}, "refusals and deferrals")
    expect(daemon.counter("scheduler.smtp_handed_on") > 0, "sessions that were handed on")
    expect_equal(len(daemon.lines("T")) + len(daemon.lines("P")), 0, "failures")
    # The first one, two to warm up, two for sinks, and the last.
    expect_equal(daemon.console("config", "status")["generation"], 6 + valid, "generations that there were")
    threads = [row["thread"] for row in daemon.console("threads")["threads"]]
    expect_equal(len([name for name in threads if name.startswith("scheduler.")]), 2, "schedulers at the end")
    if LONG:
        after = settled_bytes(daemon)
        memory += ("control, settled", level), ("settled", after)
        judge_by_control(phases, level, after)
    print("     resident MiB: " + ", ".join(f"{name} {size >> 20}" for name, size in memory))


def judge_by_control(phases, level, after):
    """A machine that stands still does so in both; one second is nobody's fault."""
    (reply, _, arrival, _), (reply_reloading, _, arrival_reloading, _) = (p.delays() for p in phases)
    expect(reply_reloading <= max(ONE_SECOND_US, 10 * reply), f"p99.9 of replies: {reply_reloading} us, without {reply} us")
    expect(arrival_reloading <= max(ONE_SECOND_US, 10 * arrival),
           f"p99.9 of arrivals: {arrival_reloading} us, without {arrival} us")
    expect(after <= level * 1.25 + (8 << 20), f"resident memory: {after >> 20} MiB, before the reloads {level >> 20} MiB")
