"""A long queue: what a queued message takes of memory, whether the queue's length slows reception, and
how long a start takes after the process was killed."""

import time

from bench.figures import Figure
from bench.flywheel import Flywheel
from bench.load import SILENCE_S, load, load_troubles
from bench.ports import free_port
from bench.process import answers
from bench.relay import straight

SIZE = 2048
SESSIONS = 100
# Bodies stay on disk: what is left is what the queue itself takes.
TEXT = 'max_outbound_connections = 20\nmemory_budget = "1M"'
PATIENCE_S = 600


def receive(bench, mta, count, prefix):
    """Messages a second."""
    summary = load(bench, mta.port, count, SIZE, SESSIONS,
                   options=["--domains", 100, "--id-prefix", prefix])
    bench.blame(f"queued, {prefix}", load_troubles(summary))
    return summary["messages_per_second"]


class Restart:
    """Killed, and started again with all that it had queued."""

    def __init__(self, bench, mta, queued):
        mta.program.kill()
        began = time.monotonic()
        mta.launch()
        mta.program.wait_until(lambda: answers(mta.port), "flywheeld to accept", PATIENCE_S, 0.002)
        self.accepting_s = time.monotonic() - began
        found = self.wait_for(mta, queued)
        self.all_s = time.monotonic() - began
        if found != queued:
            bench.blame("restart", [f"{queued} were queued, {found} are after a kill"])

    @staticmethod
    def wait_for(mta, queued):
        """How many are queued again, when it is all of them or no more come."""
        seen, changed = -1, time.monotonic()
        while time.monotonic() - changed < SILENCE_S:
            found = mta.queued()
            if found >= queued:
                return found
            if found != seen:
                seen, changed = found, time.monotonic()
            time.sleep(0.005)
        return seen


class Queued:
    """Nobody listens where the mail should go."""

    name = "queued"
    about = "1 000 000 messages of 2 KiB queued: memory, reception; restart after a kill"
    # It takes long, and its figures are steady.
    pairs_max = 3

    size, sessions, options = SIZE, SESSIONS, ["--domains", 100]

    def run_pair(self, bench):
        count = bench.count(1000000, quick=50000)
        tenth = count // 10
        reference = straight(bench, self, tenth).rate
        small = self.fill_and_restart(bench, count // 10, parts=(tenth,))
        large = self.fill_and_restart(bench, count, parts=(tenth, count - 2 * tenth, tenth))
        yield from self.queue_figures(large, reference)
        yield from self.restart_figures(small["restart"], large["restart"], tenth, count)

    def fill_and_restart(self, bench, count, parts):
        with Flywheel(bench, "queued", free_port(), text=TEXT) as mta:
            mta.start()
            empty = mta.resident_bytes()
            rates = [receive(bench, mta, part, f"part{i}") for i, part in enumerate(parts)]
            mta.program.wait_until(lambda: mta.queued() == count, "all messages to be queued",
                                   PATIENCE_S)
            found = {"rates": rates, "bytes": (mta.resident_bytes() - empty) / count}
            found["restart"] = Restart(bench, mta, count)
            found["bytes_again"] = (mta.resident_bytes() - empty) / count
            mta.program.kill()
            mta.remove()
        return found

    def queue_figures(self, large, reference):
        yield Figure(self.name, "bytes", "resident memory", "B/message", large["bytes"],
                     {"after a restart": large["bytes_again"]})
        yield Figure(self.name, "first.rate", "accepted, first tenth", "messages/s",
                     large["rates"][0], {"generator to sink": reference})
        yield Figure(self.name, "last.rate", "accepted, last tenth", "messages/s",
                     large["rates"][-1], {"first tenth": large["rates"][0]})

    def restart_figures(self, small, large, tenth, count):
        yield Figure(self.name, "restart.accepting", f"restart, {count}: accepting", "s",
                     large.accepting_s, {f"{tenth} messages": small.accepting_s})
        yield Figure(self.name, "restart.all", f"restart, {count}: all queued", "s",
                     large.all_s, {f"{tenth} messages": small.all_s})


CASES = [Queued()]
