"""Looking for mail in a long queue: how long `find` takes, and how much relaying slows down meanwhile.

One daemon has a queue that does not move, and relays other mail: in turns a second by itself, and a
second or more with searches beside it, one right after the other."""

import time

from bench.figures import Figure
from bench.flywheel import RELAY, Flywheel
from bench.load import Load, Sink, load, load_troubles
from bench.process import BenchError

SIZE = 1024
SESSIONS = 100
DOMAINS = 100
NEEDLES = 10
SENDER = "needle@needle.example"
# Bodies stay on disk, as they do when so many wait.
TEXT = RELAY + '\nmemory_budget = "1M"\n' + "".join(
    f'domain "q{i}.example" {{ suspend_delivery = true }}\n' for i in range(DOMAINS))
PATIENCE_S = 600
# By itself, and with searches: so long at a time, so that what else the machine does meets both.
TURN_S = 1.0


class Rate:
    """Deliveries a second, over several spans of time."""

    def __init__(self, mta):
        self.mta, self.seconds, self.count, self.searches = mta, 0.0, 0, 0

    def over(self, act):
        """Counts what is delivered while act() runs; the seconds that it took."""
        before, began = self.mta.counter("scheduler", "delivered"), time.monotonic()
        act()
        seconds = time.monotonic() - began
        self.count += self.mta.counter("scheduler", "delivered") - before
        self.seconds += seconds
        return seconds

    @property
    def value(self):
        return self.count / self.seconds


class Find:
    """Needles in a queue, by what only envelopes and headers say."""

    name = "find"
    about = "find in 1 000 000 queued messages of 1 KiB: time, and relaying meanwhile"
    # It takes long, and its figures are steady.
    pairs_max = 3

    def run_pair(self, bench):
        count = bench.count(1000000, quick=50000)
        with Sink(bench) as sink, Flywheel(bench, "find", sink.port, text=TEXT) as mta:
            mta.start()
            self.fill(bench, mta, count)
            searches = self.searches(mta)
            times = {name: self.search(bench, mta, words) for name, words in searches.items()}
            alone, beside = self.relay(bench, mta, searches)
            mta.program.kill()
            mta.remove()
        for name, seconds in times.items():
            yield Figure(self.name, name, f"by {name}", "s", seconds)
        yield Figure(self.name, "relay", "relaying while it searches", "messages/s", beside.value,
                     {"by itself": alone.value})
        yield Figure(self.name, "beside", "a search beside relaying", "s", beside.seconds / beside.searches,
                     {"by itself": sum(times.values()) / len(times)})

    @staticmethod
    def fill(bench, mta, count):
        options = ["--domains", DOMAINS, "--domain-format", "q%u.example"]
        for number, more in ((count - NEEDLES, ["--id-prefix", "hay"]),
                             (NEEDLES, ["--id-prefix", "needle", "--from", SENDER])):
            summary = load(bench, mta.port, number, SIZE, SESSIONS, options=options + more)
            bench.blame("find, filling", load_troubles(summary))
        mta.program.wait_until(lambda: mta.queued() == count, "all messages to be queued", PATIENCE_S)

    @staticmethod
    def searches(mta):
        found = mta.console("find", "sender", SENDER)["deliveries"]
        return {
            "state": ["state", "held"],
            "sender": ["sender", SENDER],
            "id": ["id", found[0]["message"]],
            "recipient": ["recipient", found[0]["recipients"][0]],
            "header": ["header", "Message-ID", "*needle-*"],
        }

    @staticmethod
    def search(bench, mta, words):
        """Seconds."""
        began = time.monotonic()
        found = mta.console("find", *words)["totals"]["deliveries"]
        seconds = time.monotonic() - began
        wanted = {"state": [0], "id": [1], "recipient": range(1, 1000000)}.get(words[0], [NEEDLES])
        if found not in wanted:
            bench.blame("find", [f"{found} found by {words[0]}"])
        return seconds

    @staticmethod
    def relay(bench, mta, searches):
        """Rates without a search beside it, and with."""
        alone, beside = Rate(mta), Rate(mta)
        messages = bench.count(400000, quick=30000)
        with Load(bench, mta.port, messages, SIZE, SESSIONS, options=["--domains", DOMAINS]) as program:
            time.sleep(TURN_S)
            # Each goes first as often as the other: a rate that falls all the time is nobody's fault.
            turns = [(alone, lambda _: time.sleep(TURN_S)),
                     (beside, lambda words: Find.search_again(mta, beside, words))]
            while not program.ended():
                for words in searches.values():
                    for rate, act in turns:
                        if not program.ended():
                            rate.over(lambda a=act, w=words: a(w))
                    turns.reverse()
            bench.blame("find, relaying", load_troubles(program.summary()))
        if alone.seconds == 0 or beside.searches == 0:
            raise BenchError(f"find: {messages} messages were relayed before both turns")
        return alone, beside

    @staticmethod
    def search_again(mta, rate, words):
        """As often as a turn has room for."""
        end = time.monotonic() + TURN_S
        while time.monotonic() < end:
            mta.console("find", *words)
            rate.searches += 1


CASES = [Find()]
