"""The table on stdout, and the same as JSON."""

import json
import shutil
import time

LINE = "{:<13}{:<35}{:>10} {:<11}{:>21}  {:<18}{:>10}{:>9}"


def number(value):
    """Three digits that count, or all that stand before the point."""
    if value is None:
        return "-"
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.2g}"


def spread(row):
    return "" if len(row.values) < 2 else f"{number(min(row.values))} .. {number(max(row.values))}"


def row_lines(row, case):
    """One line for each reference, or one."""
    names = list(row.beside) or [None]
    for i, name in enumerate(names):
        own = (case, row.text, number(row.median()), row.unit, spread(row)) if i == 0 else [""] * 5
        other = ("", "", "") if name is None else (
            name, number(row.median_beside(name)), number(row.ratio(name)))
        yield LINE.format(*own, *other).rstrip()


def print_table(facts, results):
    print()
    for name, value in facts.items():
        print(f"{name + ':':<10}{value}")
    print()
    print(LINE.format("case", "figure", "median", "unit", "all pairs", "beside", "median", "ratio"))
    last = None
    for row in results:
        if last not in (None, row.case):
            print()
        for line in row_lines(row, row.case if row.case != last else ""):
            print(line)
        last = row.case


def print_targets(verdicts):
    if not verdicts:
        return
    print("\ntargets")
    for verdict in verdicts:
        print("  " + verdict.line())


def write_json(folder, facts, results, verdicts, troubles, notes):
    """latest.json, and one with the date in its name."""
    document = dict(facts, figures=[row.as_json() for row in results],
                    targets=[verdict.as_json() for verdict in verdicts],
                    troubles=troubles, notes=notes)
    path = folder / "latest.json"
    with open(path, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.write("\n")
    shutil.copyfile(path, folder / (time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + ".json"))
    return path
