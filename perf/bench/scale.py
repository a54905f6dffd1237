"""Does a message cost more when there are many connections, or many domains?

Messages come at one offered rate, so that batches are alike; CPU time is taken from a moment at
which all are connected to one at which none has left."""

import time

from bench.figures import Figure
from bench.flywheel import RELAY, Flywheel
from bench.load import Load, Sink, load_troubles, sink_troubles
from bench.relay import TOOL, straight

SIZE = 2048


class Offered:
    """What one run is made of."""

    def __init__(self, sessions=100, domains=100, text="", rate=3000, seconds=6):
        self.name = "scale"
        self.size, self.sessions, self.domains, self.text = SIZE, sessions, domains, text
        self.rate, self.seconds = rate, seconds
        self.options = ["--domains", domains, "--rate", rate, "--gather", "--turns",
                        "--connect-retry", 20]


def window(mta, program, seconds):
    """CPU microseconds for each message delivered, while the load runs evenly."""
    program.wait_until(lambda: "connected" in program.said(), "all sessions to connect", 120)
    time.sleep(seconds * 0.2)
    before_us, before = mta.cpu_us(), mta.counter("scheduler", "delivered")
    time.sleep(seconds * 0.6)
    after_us, after = mta.cpu_us(), mta.counter("scheduler", "delivered")
    return (after_us - before_us) / max(after - before, 1)


def run_offered(bench, offered, who):
    """CPU per message, the load's summary, the sink's books."""
    messages = int(offered.rate * offered.seconds)
    with Sink(bench) as sink, Flywheel(bench, "scale", sink.port, text=offered.text) as mta:
        mta.start()
        with Load(bench, mta.port, messages, SIZE, offered.sessions, offered.options) as program:
            cpu_us = window(mta, program, offered.seconds)
            summary = program.summary()
        sink.wait_for(summary["accepted"])
        queued = mta.wait_for_rest()
        mta.stop()
        books = sink.close_books()
    bench.blame(who, load_troubles(summary) + sink_troubles(books, summary["accepted"]) + queued)
    return cpu_us, summary, books


class Connections:
    """So many clients' connections, each of which sends in its turn and is silent in between."""

    name = "connections"
    about = "CPU per message at one rate from 20, 1 000 and 10 000 connections, used in turn"
    COUNTS = (20, 1000, 10000)

    def run_pair(self, bench):
        first = None
        seconds = bench.count(6, quick=3)
        tool = straight(bench, Offered(sessions=20, seconds=seconds), 3000 * seconds).tool_us
        for count in self.COUNTS:
            sessions = min(count, bench.connections_max)
            if sessions < count:
                bench.note_once(f"the limit of descriptors allows {sessions} connections, not {count}")
            cpu_us, summary, _ = run_offered(
                bench, Offered(sessions=sessions, text=RELAY + "\nlistener_sessions = 0\n"
                               "listen_backlog = 4096", seconds=seconds), f"{count} connections")
            beside = {TOOL: tool} if first is None else {f"{self.COUNTS[0]} connections": first}
            first = first or cpu_us
            yield Figure(self.name, f"{count}.cpu", f"{count} connections: CPU", "us/message",
                         cpu_us, beside)
            yield Figure(self.name, f"{count}.p99", f"{count} connections: submission, p99", "us",
                         summary["latency_us"]["p99"])


class Domains:
    """So many recipient domains behind one gateway, each with the default options."""

    name = "domains"
    about = "CPU per message at one rate to 10, 1 000 and 100 000 domains behind one gateway"
    COUNTS = (10, 1000, 100000)

    def run_pair(self, bench):
        first = None
        tool = straight(bench, Offered(domains=10, seconds=1), 3000).tool_us
        for count in self.COUNTS:
            # Each domain gets a message; few domains get many.
            seconds = bench.count(max(6, count / 4000), quick=3)
            cpu_us, summary, books = run_offered(
                bench, Offered(domains=count, rate=4000, seconds=seconds), f"{count} domains")
            beside = {TOOL: tool} if first is None else {f"{self.COUNTS[0]} domains": first}
            first = first or cpu_us
            yield Figure(self.name, f"{count}.cpu", f"{count} domains: CPU", "us/message", cpu_us,
                         beside)
            yield Figure(self.name, f"{count}.connections", f"{count} domains: connections made",
                         "per message", books["connections"] / max(summary["accepted"], 1))


CASES = [Connections(), Domains()]
