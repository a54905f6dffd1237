"""What logging costs: relaying with logs in text, with JSON besides, with journals besides those, and with
a custom log as well. In each pair one after the other; and instructions per message, on the log agent and on
all other threads."""

import pathlib
import re
import shutil
import subprocess

from bench.counts import OPTIONS, SESSIONS, SIZE, UNDER_VALGRIND, instructions
from bench.figures import Figure
from bench.flywheel import RELAY, Flywheel
from bench.load import Sink, end_to_end_rate, load, load_troubles, sink_troubles
from bench.process import BenchError

JSON = """
log {
    main = ( "file:mainlog" "json:events.json" )
    bounce = ( "file:bouncelog" "json:events.json" )
    reject = ( "file:rejectlog" "json:events.json" )
}
"""
JOURNALS = """
log {
    main = ( "file:mainlog" "json:events.json" "jlog:main.jlog" )
    bounce = ( "file:bouncelog" "json:events.json" "jlog:bounce.jlog" )
    reject = ( "file:rejectlog" "json:events.json" "jlog:reject.jlog" )
}
"""
CUSTOM = JOURNALS + """
custom_logger "all" {
    mainlog = "file:custom"
    reception_format = "%t{%Y-%m-%dT%H:%M:%SZ}|%i|%r@%R|%m@%M|%B|%b|%g|%H|%p|%h{Subject}"
    delivery_format = "%t{%Y-%m-%dT%H:%M:%SZ}|%i|%r@%R|%m@%M|%B|%b|%g|%H|%T|%n|%h{Subject}"
}
"""
LOGS = {"text": "", "json": JSON, "journals": JOURNALS, "custom": CUSTOM}
WORDS = {"text": "text", "json": "text and JSON", "journals": "text, JSON and journals",
         "custom": "text, JSON, journals and a custom log"}
# Of the log agent: what its thread runs for it.
LOG_AGENT = ("log_writer_do_work", "log_writer_on_block")


class Run:
    """Rate, CPU and bytes of logs per message."""

    def __init__(self, bench, messages, kind):
        with Sink(bench) as sink, Flywheel(bench, f"logging-{kind}", sink.port, text=RELAY + LOGS[kind]) as mta:
            mta.start()
            before_us, before_bytes = mta.cpu_us(), mta.counter("log", "bytes")
            summary = load(bench, mta.port, messages, SIZE, SESSIONS, options=OPTIONS)
            sink.wait_for(summary["accepted"])
            queued = mta.wait_for_rest()
            self.cpu_us = (mta.cpu_us() - before_us) / messages
            self.log_bytes = (mta.counter("log", "bytes") - before_bytes) / messages
            mta.stop()
            books = sink.close_books()
        self.rate = end_to_end_rate(summary, books)
        bench.blame(f"logging, {WORDS[kind]}", load_troubles(summary) + queued +
                    sink_troubles(books, summary["accepted"]))


def inclusive(profile):
    """Instructions of a callgrind run: (all, those of the log agent)."""
    done = subprocess.run(["callgrind_annotate", "--inclusive=yes", "--threshold=100", profile],
                          capture_output=True, text=True, timeout=300, check=True)
    total = re.search(r"^\s*([\d,]+) \(100\.0%\)\s+PROGRAM TOTALS", done.stdout, re.M)
    if not total:
        raise BenchError(f"callgrind_annotate told no total:\n{done.stdout[:2000]}")
    of_log = 0
    for name in LOG_AGENT:
        # In a cycle of calls a function has a number behind its name.
        found = re.search(rf"^\s*([\d,]+) \([^)]*\)\s+\S*:{name}\b", done.stdout, re.M)
        of_log += int(found[1].replace(",", "")) if found else 0
    return int(total[1].replace(",", "")), of_log


def instructions_with(bench, messages, kind):
    """User instructions of a whole run of so many messages: (other threads, the log agent)."""
    profile = pathlib.Path(bench.work) / f"callgrind-{kind}"
    profile.unlink(missing_ok=True)
    instructions(bench, messages, f"logging-{kind}", UNDER_VALGRIND + LOGS[kind], profile=profile)
    total, of_log = inclusive(profile)
    return total - of_log, of_log


class Logging:
    name = "logging"
    about = "relay with logs as text, JSON besides, journals besides, and a custom log as well"
    pairs_max = 3

    def run_pair(self, bench):
        messages = bench.count(20000, quick=2000)
        runs = {kind: Run(bench, messages, kind) for kind in LOGS}
        text = runs["text"]
        for kind, run in runs.items():
            beside = {} if run is text else {"text": text.rate}
            yield Figure(self.name, f"{kind}.rate", f"{WORDS[kind]}: rate, end to end", "messages/s", run.rate, beside)
            beside = {} if run is text else {"text": text.cpu_us}
            yield Figure(self.name, f"{kind}.cpu", f"{WORDS[kind]}: CPU", "us/message", run.cpu_us, beside)
            yield Figure(self.name, f"{kind}.bytes", f"{WORDS[kind]}: written to logs", "B/message", run.log_bytes)
        if shutil.which("valgrind"):
            yield from self.instruction_figures(bench)
        else:
            bench.note_once("instructions of logging were not counted: valgrind is missing")

    def instruction_figures(self, bench):
        few, many = bench.count(1000, quick=200), bench.count(3000, quick=600)
        found = {}
        for kind in LOGS:
            less, more = (instructions_with(bench, messages, kind) for messages in (few, many))
            found[kind] = [(b - a) / (many - few) for a, b in zip(less, more)]
        for kind, (others, log) in found.items():
            beside = {} if kind == "text" else {"text": found["text"][0]}
            yield Figure(self.name, f"{kind}.instructions", f"{WORDS[kind]}: user instructions, but for the log agent",
                         "per message", others, beside)
            beside = {} if kind == "text" else {"text": found["text"][1]}
            yield Figure(self.name, f"{kind}.log_instructions", f"{WORDS[kind]}: user instructions of the log agent",
                         "per message", log, beside)


CASES = [Logging()]
