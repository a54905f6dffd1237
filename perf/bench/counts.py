"""What a relayed message takes, counted instead of timed: system calls, context switches, bytes
written, syncs, instructions. Another machine, or a busy one, counts nearly the same."""

import pathlib
import re
import shutil
import signal

from bench.figures import Figure
from bench.flywheel import RELAY, Flywheel
from bench.load import Sink, load, load_troubles, sink_troubles
from bench.process import BenchError, Program

SIZE = 10240
SESSIONS = 20
# Those that flywheeld makes while it relays; all others are counted together.
CALLS = ("io_uring_enter", "write", "writev", "read", "sendmsg", "recvmsg", "sendto", "recvfrom",
         "fdatasync", "pwrite64", "pwritev", "epoll_wait", "futex", "socket", "connect", "close",
         "setsockopt", "getpeername", "fstatfs", "sched_yield", "clock_nanosleep")
OPTIONS = ["--domains", 100]
# Valgrind runs one thread at a time and knows no io_uring; looking for work before sleeping is left
# out, as what it takes depends on the time.
UNDER_VALGRIND = RELAY + """
multiplexor = "poll"
agent scheduler { spin = "0" }
agent spool { spin = "0" }
"""


class Calls:
    """Counts system calls of a running process, in the kernel: no call waits for a tracer."""

    def __init__(self, bench, pid):
        self.file = bench.work / "calls"
        events = ["raw_syscalls:sys_enter"] + [f"syscalls:sys_enter_{name}" for name in CALLS]
        self.program = Program(["perf", "stat", "-x", ",", "-o", self.file, "-e", ",".join(events),
                                "-p", pid], bench.work / "perf.out")

    def stop(self):
        """Calls by name, and "all"; None when they cannot be counted here."""
        self.program.process.send_signal(signal.SIGINT)
        self.program.process.wait(60)
        found = {}
        text = self.file.read_text(encoding="utf-8") if self.file.exists() else ""
        for line in text.splitlines():
            match = re.match(r"(\d+),.*sys_enter(?:_(\w+))?,", line)
            if match:
                found[match[2] or "all"] = int(match[1])
        return found if found.get("all") else None


def context_switches(pid):
    """(voluntary, involuntary), of the threads that live."""
    totals = [0, 0]
    for status in pathlib.Path(f"/proc/{pid}/task").glob("*/status"):
        text = status.read_text(encoding="utf-8")
        for i, word in enumerate(("\nvoluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:")):
            totals[i] += int(text.split(word)[1].split()[0])
    return totals


def bytes_written(pid):
    text = pathlib.Path(f"/proc/{pid}/io").read_text(encoding="utf-8")
    return int(re.search(r"^write_bytes: (\d+)", text, re.M)[1])


class State:
    """What has been counted so far."""

    def __init__(self, mta):
        self.voluntary, self.involuntary = context_switches(mta.pid)
        self.written = bytes_written(mta.pid)
        self.syncs = mta.counter("spool", "syncs")
        self.spool_bytes = mta.counter("spool", "bytes")
        self.log_bytes = mta.counter("log", "bytes")


class Counted:
    """One run of a flywheel that has run for a while, per message."""

    def __init__(self, bench, messages, with_calls):
        with Sink(bench) as sink, Flywheel(bench, "counts", sink.port) as mta:
            mta.start()
            warm = self.send(bench, mta, max(messages // 10, 100), "warm")
            mta.wait_for_rest()
            counter = Calls(bench, mta.pid) if with_calls else None
            if counter:
                counter.program.wait_until(lambda: counter.program.cpu_us() > 0, "perf to start")
            before = State(mta)
            self.summary = self.send(bench, mta, messages, "counted")
            sink.wait_for(warm["accepted"] + self.summary["accepted"])
            queued = mta.wait_for_rest()
            after = State(mta)
            calls = counter.stop() if counter else None
            mta.stop()
            books = sink.close_books()
        bench.blame("counts", load_troubles(warm) + load_troubles(self.summary) + queued +
                    sink_troubles(books, warm["accepted"] + self.summary["accepted"]))
        self.per_message = {name: (value - getattr(before, name)) / messages
                            for name, value in vars(after).items()}
        self.calls = calls and {name: count / messages for name, count in calls.items()}

    @staticmethod
    def send(bench, mta, messages, prefix):
        return load(bench, mta.port, messages, SIZE, SESSIONS,
                    options=[*OPTIONS, "--id-prefix", prefix])


def instructions(bench, messages, name="counts", text=UNDER_VALGRIND, size=SIZE, profile="/dev/null"):
    """All that flywheeld executed in user space while it relayed so many, starting and stopping included. Where it was
    spent is in the file `profile` then."""
    with Sink(bench) as sink, Flywheel(bench, f"valgrind-{name}", sink.port, text=text, threads="") as mta:
        # Fair, or a thread that spins while others start keeps them from it.
        mta.start(prefix=["valgrind", "--tool=callgrind", "--fair-sched=yes", f"--callgrind-out-file={profile}"])
        summary = load(bench, mta.port, messages, size, SESSIONS, options=OPTIONS)
        sink.wait_for(summary["accepted"])
        queued = mta.wait_for_rest()
        mta.program.stop()
        collected = re.search(r"Collected : (\d+)", mta.program.said())
        books = sink.close_books()
    bench.blame(f"{name}, valgrind", load_troubles(summary) + queued +
                sink_troubles(books, summary["accepted"]))
    if not collected:
        raise BenchError(f"valgrind told no count:\n{mta.program.said()}")
    return int(collected[1])


class Counts:
    """Counts hardly differ from run to run."""

    name = "counts"
    about = "system calls, context switches, bytes, syncs and instructions of a relayed message"
    pairs_max = 3

    def run_pair(self, bench):
        messages = bench.count(20000, quick=3000)
        plain = Counted(bench, messages, with_calls=False)
        traced = None
        if shutil.which("perf"):
            traced = Counted(bench, messages, with_calls=True)
        if traced is None or traced.calls is None:
            bench.note_once("system calls were not counted: perf is missing, or may not")
        else:
            yield from self.call_figures(plain, traced)
        for key, text, unit in (("voluntary", "context switches, voluntary", "per message"),
                                ("involuntary", "context switches, involuntary", "per message"),
                                ("syncs", "syncs", "per message"),
                                ("written", "written to the disk", "B/message"),
                                ("spool_bytes", "spool records", "B/message"),
                                ("log_bytes", "log lines", "B/message")):
            yield Figure(self.name, key, text, unit, plain.per_message[key])
        if shutil.which("valgrind"):
            few, many = bench.count(1000, quick=200), bench.count(3000, quick=600)
            per_message = (instructions(bench, many) - instructions(bench, few)) / (many - few)
            yield Figure(self.name, "instructions", "user instructions, poll, valgrind",
                         "per message", per_message)
        else:
            bench.note_once("instructions were not counted: valgrind is missing")

    def call_figures(self, plain, traced):
        calls = traced.calls
        yield Figure(self.name, "calls", "system calls", "per message", calls["all"])
        for name in sorted(CALLS, key=lambda name: -calls.get(name, 0)):
            if calls.get(name, 0) >= 0.005:
                yield Figure(self.name, f"calls.{name}", f"  {name}", "per message", calls[name])
        other = calls["all"] - sum(calls.get(name, 0) for name in CALLS)
        yield Figure(self.name, "calls.other", "  others", "per message", other)
        # Whether counting changed what was counted.
        yield Figure(self.name, "traced.rate", "accepted while calls are counted", "messages/s",
                     traced.summary["messages_per_second"],
                     {"not counted": plain.summary["messages_per_second"]})
        yield Figure(self.name, "traced.syncs", "syncs while calls are counted", "per message",
                     traced.per_message["syncs"], {"not counted": plain.per_message["syncs"]})


CASES = [Counts()]
