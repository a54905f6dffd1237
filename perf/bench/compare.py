"""Two builds of flywheel, pair by pair: what of a case has changed."""

import statistics

from bench.figures import Results
from bench.report import number

LINE = "{:<42}{:<12}{:>11}{:>11}{:>9}  {}"


class Side:
    """One of the two builds, in a folder of its own."""

    def __init__(self, bench, name, build):
        self.name, self.build = name, build
        self.work = bench.work / name
        self.work.mkdir(mode=0o711)
        self.results = Results()

    def run(self, bench, case):
        bench.build, bench.work = self.build, self.work
        self.results.add(case.run_pair(bench))


def measure(bench, cases, builds, pairs):
    """The two sides, after old, new, old, new and so on."""
    sides = [Side(bench, name, build) for name, build in zip(("old", "new"), builds)]
    for pair in range(pairs):
        for case in cases:
            for side in sides:
                bench.tell(f"pair {pair + 1} of {pairs}: {case.name}, {side.name}")
                side.run(bench, case)
    return sides


def agreement(ratios):
    """How many of the pairs moved the way most of them did."""
    more = sum(ratio > 1 for ratio in ratios)
    less = sum(ratio < 1 for ratio in ratios)
    return f"{max(more, less)} of {len(ratios)} say {'more' if more >= less else 'less'}"


def compared(sides):
    """(row of the old, row of the new, ratios of the pairs) of every figure that both have."""
    old, new = (side.results for side in sides)
    for row in old:
        other = new.find(row.case, row.key)
        if other:
            ratios = [b / a for a, b in zip(row.values, other.values) if a]
            yield row, other, ratios


def print_table(facts, sides):
    print()
    for name in ("machine", "kernel", "date", "busy", "options"):
        print(f"{name + ':':<10}{facts[name]}")
    print()
    print(LINE.format("figure", "unit", "old", "new", "ratio", "pairs"))
    for row, other, ratios in compared(sides):
        middle = statistics.median(ratios) if ratios else None
        print(LINE.format(f"{row.case} {row.text}", row.unit, number(row.median()),
                          number(other.median()), number(middle), agreement(ratios)))
