#!/usr/bin/env python3
"""Measures flywheel on this machine, every figure beside its reference of the same run.

Prints one table, and writes it to BUILD/bench/latest.json. Everything is on loopback with free
ports, and all that was started is stopped, also at ^C. perf/README.md says what is measured how."""

import argparse
import pathlib
import resource
import shutil
import signal
import sys
import tempfile

from bench import cases, compare, machine, plot, report, targets
from bench.figures import Results
from bench.process import BenchError

DESCRIPTORS = 80000
ROOT = pathlib.Path(__file__).resolve().parent.parent


def raise_descriptor_limit():
    """As many as 10 000 connections need on either side, when that is allowed. How many there are."""
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(allowed, DESCRIPTORS)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
        return wanted
    except (OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))
        return allowed


class Bench:
    """One run: where it works, how much it measures, and what it found wrong."""

    def __init__(self, build, work, arguments):
        # flywheeld comes from one, the load tools from the other.
        self.build = self.tools = build
        self.work = self.public = work
        self.quick = arguments.quick
        self.pairs = arguments.pairs
        self.compares_builds = arguments.compare is not None
        self.results = Results()
        self.troubles = []
        self.notes = []
        self.connections_max = raise_descriptor_limit() // 2 - 200

    def count(self, full, quick):
        """How many messages: a quick run has its own number."""
        return quick if self.quick else full

    def blame(self, where, troubles):
        """Keeps what was wrong with the mail of one run."""
        for trouble in troubles:
            self.troubles.append(f"{where}: {trouble}")
            self.tell("WRONG: " + self.troubles[-1])

    def note_once(self, text):
        """Keeps what a reader of the figures must know."""
        if text not in self.notes:
            self.notes.append(text)

    @staticmethod
    def tell(text):
        print("bench: " + text, file=sys.stderr, flush=True)


def measure(bench, chosen, pairs):
    """Pair by pair through all cases, so that a machine that drifts does so for all of them."""
    for pair in range(pairs):
        for case in chosen:
            if pair < getattr(case, "pairs_max", pairs):
                bench.tell(f"pair {pair + 1} of {pairs}: {case.name}")
                bench.results.add(case.run_pair(bench))


def run(arguments):
    build = (ROOT / arguments.build).resolve()
    folder = pathlib.Path(arguments.output or build / "bench").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix="run.", dir=folder))
    bench = Bench(build, work, arguments)
    bench.public = make_public(bench)
    facts = machine.facts(work, options_text(arguments))
    if machine.load_average() >= 1:
        bench.note_once("others ran here at the start: rates are low, and spread")
    try:
        chosen = cases.choose(arguments.cases)
        if arguments.compare:
            builds = [pathlib.Path(path).resolve() for path in arguments.compare]
            sides = compare.measure(bench, chosen, builds, arguments.pairs)
            compare.print_table(facts, sides)
        else:
            measure(bench, chosen, arguments.pairs)
            finish(bench, folder, facts)
    finally:
        if not arguments.keep:
            shutil.rmtree(work, ignore_errors=True)
            shutil.rmtree(bench.public, ignore_errors=True)
    for text in [*map("note: ".__add__, bench.notes), *map("WRONG: ".__add__, bench.troubles)]:
        print(text)
    return 1 if bench.troubles else 0


def finish(bench, folder, facts):
    verdicts = targets.judge(bench.results)
    report.print_table(facts, bench.results)
    report.print_targets(verdicts)
    path = report.write_json(folder, facts, bench.results, verdicts, bench.troubles, bench.notes)
    files = [path, *plot.draw(folder, facts, bench.results)]
    print(f"\nwritten to {' '.join(map(str, files))}")


def is_passable(path):
    """Whether a process that has given up root gets there."""
    return all(folder.stat().st_mode & 0o001 for folder in [path, *path.parents])


def make_public(bench):
    """Where Postfix works: in our folder, or elsewhere when that is closed to its processes."""
    bench.work.chmod(0o711)
    if is_passable(bench.work):
        return bench.work
    folder = pathlib.Path(tempfile.mkdtemp(prefix="flywheel-bench.", dir="/var/tmp"))
    folder.chmod(0o711)
    bench.note_once(f"Postfix's queue was in /var/tmp ({machine.file_system(folder)})")
    return folder


def options_text(arguments):
    quick = ", quick" if arguments.quick else ""
    return f"cases {' '.join(arguments.cases) or 'all'}, pairs {arguments.pairs}{quick}"


def parse_command_line():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="cases:\n" + "".join(f"  {case.name:<13}{case.about}\n" for case in cases.ALL) +
        "\nExit status: 0; 1 when mail was lost, doubled, damaged or refused; 2 for a failure.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="which cases (default all)")
    parser.add_argument("--pairs", type=int, help="how often each is measured (default 5)")
    parser.add_argument("--quick", action="store_true", help="one pair, and small counts")
    parser.add_argument("--build", default="build", help="where the programs are (default build)")
    parser.add_argument("--output", help="where the figures go (default BUILD/bench)")
    parser.add_argument("--compare", nargs=2, metavar=("OLD", "NEW"), help="folders of two builds: "
                        "their flywheeld in turn, without Postfix (perf/compare.sh makes them)")
    parser.add_argument("--keep", action="store_true", help="keep configurations, spools and logs")
    arguments = parser.parse_args()
    arguments.pairs = arguments.pairs or (1 if arguments.quick else 5)
    if arguments.pairs < 1:
        parser.error("--pairs: at least 1")
    return arguments


def on_signal(number, _frame):
    raise SystemExit(128 + number)


def main():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    try:
        return run(parse_command_line())
    except BenchError as error:
        Bench.tell(str(error))
        return 2


if __name__ == "__main__":
    sys.exit(main())
