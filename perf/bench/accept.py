"""Accepting while the next hop is down, and draining the queue once it is up again."""

import time

from bench.figures import Figure
from bench.flywheel import Flywheel
from bench.load import Sink, end_to_end_rate, load, load_troubles, sink_troubles
from bench.ports import free_port
from bench.relay import GENERATOR, TOOL, straight


class Accept:
    """Mail is accepted, made durable and queued; then the sink comes up, and an operator's flush
    tells flywheel to try again at once."""

    def __init__(self, name, size, sessions, messages):
        self.name, self.size, self.sessions, self.messages = name, size, sessions, messages
        self.options = ["--domains", 100]
        self.about = (f"accept {size // 1024} KiB, {sessions} sessions, while the next hop is down; "
                      "then drain")

    def run_pair(self, bench):
        messages = bench.count(self.messages, quick=self.messages // 20)
        reference = straight(bench, self, messages)
        port = free_port()
        with Flywheel(bench, "accept", port) as mta:
            mta.start()
            accept_us = mta.cpu_us()
            summary = load(bench, mta.port, messages, self.size, self.sessions,
                           options=self.options)
            accept_us = mta.cpu_us() - accept_us
            drain_rate, drain_us = self.drain(bench, mta, port, summary)
        yield Figure(self.name, "rate", "accepted", "messages/s", summary["messages_per_second"],
                     {GENERATOR: reference.rate})
        yield Figure(self.name, "cpu", "CPU, accepting", "us/message", accept_us / messages,
                     {TOOL: reference.tool_us})
        yield Figure(self.name, "p99", "submission, p99", "us", summary["latency_us"]["p99"])
        yield Figure(self.name, "drain.rate", "drained", "messages/s", drain_rate,
                     {GENERATOR: reference.rate})
        yield Figure(self.name, "drain.cpu", "CPU, draining", "us/message", drain_us / messages,
                     {TOOL: reference.tool_us})

    def drain(self, bench, mta, port, summary):
        """Rate from the flush to the last arrival, and CPU microseconds."""
        with Sink(bench, port) as sink:
            before_us, flushed_ns = mta.cpu_us(), time.monotonic_ns()
            mta.console("flush", "domain", "all")
            sink.wait_for(summary["accepted"])
            drain_us = mta.cpu_us() - before_us
            queued = mta.wait_for_rest()
            mta.stop()
            books = sink.close_books()
        bench.blame(self.name, load_troubles(summary) + queued +
                    sink_troubles(books, summary["accepted"]))
        return end_to_end_rate({"started_ns": flushed_ns}, books), drain_us


CASES = [
    Accept("accept-10k", 10240, 20, messages=40000),
    Accept("accept-2k", 2048, 100, messages=60000),
]
