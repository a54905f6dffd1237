"""Latency at a steady rate, from the time at which each message was due: no coordinated omission.

Beside it the disk by itself, twice. One thread that writes 10 KiB and syncs, again and again: a stall of
the disk is one sample among thousands then. And one that writes as many bytes a second as the messages
have, in durable writes which are due at a steady rate, too: a stall delays all that were due meanwhile."""

import mmap
import os
import time

from bench.figures import Figure
from bench.flywheel import Flywheel
from bench.load import Sink, load, load_troubles, sink_troubles
from bench.relay import CASES as RELAYS, through_flywheel

SIZE = 10240
SESSIONS = 100
SHARES = (25, 50, 75)
QUANTILES = (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))
DISK = "pwrite, fdatasync"
PACED = "as many bytes, paced"
# About what a commit has at such rates.
PACED_BYTES = 64 << 10
FILE_BYTES = 64 << 20


def quantile(values, fraction):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


def fill_file(descriptor):
    """All of it is there, and on the disk."""
    for offset in range(0, FILE_BYTES, 1 << 20):
        os.pwrite(descriptor, os.urandom(1 << 20), offset)
    os.fsync(descriptor)


def disk_latency_us(path, seconds):
    """Quantiles of a write of 10 KiB and its sync, into a file that is all there already."""
    block = os.urandom(SIZE)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    took = []
    try:
        fill_file(descriptor)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            before = time.perf_counter_ns()
            os.pwrite(descriptor, block, len(took) * SIZE % (FILE_BYTES - SIZE))
            os.fdatasync(descriptor)
            took.append((time.perf_counter_ns() - before) / 1000)
    finally:
        os.close(descriptor)
        os.unlink(path)
    return {name: quantile(took, fraction) for name, fraction in QUANTILES}


def paced_latency_us(path, bytes_per_second, seconds):
    """Quantiles of durable writes, straight to the disk, each from when it was due."""
    rate = bytes_per_second / PACED_BYTES
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fill_file(descriptor)
    os.close(descriptor)
    descriptor = os.open(path, os.O_RDWR | os.O_DIRECT)
    took = []
    try:
        with mmap.mmap(-1, PACED_BYTES) as block:
            began = time.perf_counter()
            for number in range(int(rate * seconds)):
                due = began + number / rate
                time.sleep(max(due - time.perf_counter(), 0))
                os.pwritev(descriptor, [block], number * PACED_BYTES % FILE_BYTES, os.RWF_DSYNC)
                took.append((time.perf_counter() - due) * 1e6)
    finally:
        os.close(descriptor)
        os.unlink(path)
    return {name: quantile(took, fraction) for name, fraction in QUANTILES}


class OpenLoop:
    """Quarters of the rate that the case relay-10k had in its first pair, in all pairs."""

    name = "open-loop"
    about = "latency at 25, 50 and 75 % of the rate of relay-10k; the bare disk"

    def __init__(self):
        self.capacity = None

    def find_capacity(self, bench):
        row = bench.results.find("relay-10k", "synced.rate")
        if row is not None:
            return row.median()
        shape = next(case for case in RELAYS if case.name == "relay-10k")
        return through_flywheel(bench, shape, bench.count(30000, quick=2500), "synced").rate

    def run_pair(self, bench):
        self.capacity = self.capacity or self.find_capacity(bench)
        seconds = bench.count(5, quick=2)
        disk = disk_latency_us(bench.work / "disk", seconds)
        for share in SHARES:
            rate = self.capacity * share / 100
            paced = paced_latency_us(bench.work / "disk", rate * SIZE, seconds)
            submission, end_to_end = self.measure(bench, rate, int(rate * seconds))
            for what, key, latency in (("submission", "submission", submission),
                                       ("end to end", "e2e", end_to_end)):
                for name, _ in QUANTILES:
                    text = f"{share} %: {what}, {name.replace('999', '99.9')}"
                    yield Figure(self.name, f"{share}.{key}.{name}", text, "us", latency[name],
                                 {DISK: disk[name], PACED: paced[name]})
            yield Figure(self.name, f"{share}.rate", f"{share} %: offered rate", "messages/s", rate)

    def measure(self, bench, rate, messages):
        with Sink(bench) as sink, Flywheel(bench, "open-loop", sink.port) as mta:
            mta.start()
            summary = load(bench, mta.port, messages, SIZE, SESSIONS, options=[
                "--domains", 100, "--rate", f"{rate:.0f}", "--gather"])
            sink.wait_for(summary["accepted"])
            queued = mta.wait_for_rest()
            mta.stop()
            books = sink.close_books()
        bench.blame(f"{self.name}, {rate:.0f}/s",
                    load_troubles(summary) + sink_troubles(books, summary["accepted"]) + queued)
        return summary["latency_us"], books["end_to_end_us"]


CASES = [OpenLoop()]
