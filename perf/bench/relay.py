"""Relaying: how many messages a second go through, and what CPU time each takes.

In each pair, one after the other: fwload straight to fwsink, flywheel with each durability, Postfix."""

from bench import postfix
from bench.figures import Figure
from bench.flywheel import Flywheel
from bench.load import Sink, end_to_end_rate, load, load_troubles, sink_troubles

# What a durability is called in a figure.
DURABILITIES = ("synced", "cached")
GENERATOR = "generator to sink"
POSTFIX = "Postfix"
TOOL = "load tools"


class Run:
    """One run's rate and CPU microseconds per message."""

    def __init__(self, summary, books, mta_us, sink_us):
        count = max(summary["accepted"], 1)
        self.rate = end_to_end_rate(summary, books)
        self.fwload_us = summary["cpu_us_per_message"]
        self.fwsink_us = sink_us / count
        self.mta_us = mta_us / count
        # Sending and taking: what a relay does, without the disk.
        self.tool_us = self.fwload_us + self.fwsink_us


def straight(bench, shape, messages):
    """fwload to fwsink, with nothing between."""
    with Sink(bench) as sink:
        before_us = sink.cpu_us()
        summary = load(bench, sink.port, messages, shape.size, shape.sessions,
                       options=shape.options)
        sink.wait_for(summary["accepted"])
        sink_us = sink.cpu_us() - before_us
        books = sink.close_books()
    bench.blame(f"{shape.name}, generator to sink",
                load_troubles(summary) + sink_troubles(books, summary["accepted"]))
    return Run(summary, books, 0, sink_us)


def through(bench, shape, messages, sink, mta, who):
    """fwload to fwsink by way of a running mail transfer agent, which is stopped in the end."""
    mta_us, sink_us = mta.cpu_us(), sink.cpu_us()
    summary = load(bench, mta.port, messages, shape.size, shape.sessions, options=shape.options)
    sink.wait_for(summary["accepted"])
    mta_us, sink_us = mta.cpu_us() - mta_us, sink.cpu_us() - sink_us
    queued = mta.wait_for_rest()
    # What an MTA sends twice, it sends by the time that it has stopped.
    mta.stop()
    books = sink.close_books()
    bench.blame(f"{shape.name}, {who}",
                load_troubles(summary) + sink_troubles(books, summary["accepted"]) + queued)
    return Run(summary, books, mta_us, sink_us)


def through_flywheel(bench, shape, messages, durability):
    with Sink(bench) as sink, Flywheel(bench, f"relay-{durability}", sink.port, durability) as mta:
        return through(bench, shape, messages, sink, mta.start(), f"flywheel {durability}")


def through_postfix(bench, shape, messages):
    with Sink(bench) as sink, postfix.Postfix(bench, "relay", sink.port, shape.sessions) as mta:
        return through(bench, shape, messages, sink, mta.start(), "Postfix")


class Relay:
    """Mail of one size, in so many sessions at a time."""

    def __init__(self, name, size, sessions, messages, postfix_messages, per_connection=0):
        self.name, self.size, self.sessions = name, size, sessions
        self.messages, self.postfix_messages = messages, postfix_messages
        self.options = ["--domains", 100, "--per-connection", per_connection]
        each = "one message per connection" if per_connection == 1 else "connections kept"
        self.about = f"relay {size // 1024} KiB, {sessions} sessions, {each}; flywheel and Postfix"

    def run_pair(self, bench):
        messages = bench.count(self.messages, quick=self.messages // 20)
        reference = straight(bench, self, messages)
        runs = {d: through_flywheel(bench, self, messages, d) for d in DURABILITIES}
        other = None
        if bench.compares_builds:
            return list(self.figures(reference, runs, other))
        if postfix.why_not():
            bench.note_once(f"no comparison with Postfix: {postfix.why_not()}")
        else:
            bench.note_once(f"Postfix: {postfix.TUNING}")
            other = through_postfix(bench, self, bench.count(
                self.postfix_messages, quick=self.postfix_messages // 10))
        return list(self.figures(reference, runs, other))

    def figures(self, reference, runs, other):
        for durability, run in runs.items():
            rates, times = {GENERATOR: reference.rate}, {TOOL: reference.tool_us}
            if other:
                rates[POSTFIX], times[POSTFIX] = other.rate, other.mta_us
            yield Figure(self.name, f"{durability}.rate", f"{durability}: rate, end to end",
                         "messages/s", run.rate, rates)
            yield Figure(self.name, f"{durability}.cpu", f"{durability}: CPU", "us/message",
                         run.mta_us, times)
        yield Figure(self.name, "fwload.cpu", "fwload's CPU, straight", "us/message",
                     reference.fwload_us, {"relaying": runs["synced"].fwload_us})
        yield Figure(self.name, "fwsink.cpu", "fwsink's CPU, straight", "us/message",
                     reference.fwsink_us, {"relaying": runs["synced"].fwsink_us})


CASES = [
    Relay("relay-10k", 10240, 20, messages=50000, postfix_messages=2000),
    Relay("relay-2k", 2048, 100, messages=80000, postfix_messages=2000),
    Relay("relay-one", 10240, 20, messages=20000, postfix_messages=1000, per_connection=1),
]
