"""The load tools: fwload sends, fwsink takes and keeps the books."""

import json
import time

from bench.ports import free_port
from bench.process import BenchError, Program

# Seconds without an arrival after which what is missing counts as lost.
SILENCE_S = 30


class Sink(Program):
    """A running fwsink, which offers what most receivers do."""

    def __init__(self, bench, port=None, options=()):
        self.port = port or free_port()
        self.stats_file = bench.work / f"sink-{self.port}.json"
        self.stats_file.unlink(missing_ok=True)
        super().__init__([bench.tools / "fwsink", "--listen", f"127.0.0.1:{self.port}", "--chunking",
                          "--stats-file", self.stats_file, *options],
                         bench.work / f"sink-{self.port}.out")
        self.wait_until(lambda: "listening on" in self.said(), "fwsink to listen")

    def stats(self):
        """Its books, at most a second old while it runs."""
        try:
            return json.loads(self.stats_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {"distinct": 0}

    def wait_for(self, count):
        """Waits until so many messages have come, or nothing has for a while."""
        seen, silent_since = -1, time.monotonic()
        while True:
            self.check()
            distinct = self.stats()["distinct"]
            if distinct >= count:
                return
            if distinct != seen:
                seen, silent_since = distinct, time.monotonic()
            elif time.monotonic() - silent_since > SILENCE_S:
                return
            time.sleep(0.05)

    def close_books(self):
        """Ends it; its final books, without the counts of each domain."""
        if self.stop() not in (0, 1):
            raise BenchError(f"fwsink failed: {self.said()}")
        stats = self.stats()
        stats.pop("domains", None)
        return stats


class Load(Program):
    """A running fwload; its summary once it has ended."""

    def __init__(self, bench, port, messages, size, sessions, options=(), name="load"):
        self.messages = messages
        super().__init__([bench.tools / "fwload", "--to", f"127.0.0.1:{port}", "--json",
                          "--messages", messages, "--size", size, "--sessions", sessions,
                          *options], bench.work / f"{name}.out")

    def summary(self, patience=600):
        if self.wait(patience) not in (0, 1):
            raise BenchError(f"fwload failed: {self.said()}")
        text = self.said()
        return json.loads(text[text.index("{"):])


def load(bench, *arguments, **options):
    """Runs fwload to its end; its summary."""
    with Load(bench, *arguments, **options) as program:
        return program.summary()


def load_troubles(summary):
    """What a correct server's client does not see."""
    if summary["accepted"] == summary["messages"]:
        return []
    missing = summary["messages"] - summary["accepted"]
    return [f"{missing} not accepted ({summary['first_trouble']})"]


def sink_troubles(books, accepted):
    """What the sink of a correct server does not see."""
    troubles = []
    if books["distinct"] < accepted:
        troubles.append(f"{accepted - books['distinct']} lost")
    return troubles + [f"{name} {books[name]}" for name in
                       ("duplicates", "bad", "foreign", "protocol_errors") if books.get(name)]


def end_to_end_rate(summary, books):
    """Messages a second from the first submission to the last arrival."""
    seconds = (books["last_arrival_ns"] - summary["started_ns"]) / 1e9
    return books["distinct"] / seconds if seconds > 0 else 0.0
