"""`make bench`: a short run of it gives every figure that it should, and tells of mail that is not in order.
Nothing is said about how fast anything was."""

import json
import os
import pathlib
import subprocess
import sys

from flow import ROOT, expect, expect_equal

# It chooses other ports than the flow tests do, and measures.
alone = True
FACTS = ("machine", "disk", "kernel", "commit", "date", "options")
RATES = [f"{durability}.rate" for durability in ("synced", "cached")]
FIGURES = {*RATES, "synced.cpu", "cached.cpu", "fwload.cpu", "fwsink.cpu"}


def build_folder(flow, **replaced):
    """The programs of a build, some of them replaced by shell scripts."""
    folder = flow.path / "build"
    folder.mkdir()
    for name in ("flywheeld", "fwload", "fwsink"):
        (folder / name).symlink_to(flow.program(name))
    for name, text in replaced.items():
        (folder / name).unlink()
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return folder


def bench(flow, folder, *options):
    """Runs it to its end: status, what it printed."""
    done = subprocess.run([sys.executable, ROOT / "perf/bench.py", "--build", folder, "--output", flow.path / "out",
                           *options], capture_output=True, text=True, timeout=600)
    return done.returncode, done.stdout + done.stderr


def left_running(folder):
    """Command lines of processes that have to do with the folder."""
    found = []
    for file in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words and int(file.parent.name) != os.getpid():
            found.append(words.replace("\0", " "))
    return found


def test_bench_measures_beside_references(flow):
    status, text = bench(flow, build_folder(flow), "--quick", "relay-10k")
    expect_equal(status, 0, f"status:\n{text}\n")
    for file in (flow.path / "out").glob("*.json"):
        found = json.loads(file.read_text())
        expect(all(found[name] for name in FACTS), f"facts in {file}")
        expect_equal(found["troubles"], [], "troubles")
        figures = {row["figure"]: row for row in found["figures"] if row["case"] == "relay-10k"}
        expect_equal(set(figures), FIGURES, "figures")
        for row in figures.values():
            expect_equal(len(row["values"]), 1, f"values of {row['figure']}")
            expect(row["median"] > 0 and row["unit"] and row["references"], f"a full row: {row}")
            for other in row["references"].values():
                expect(other["median"] > 0 and other["ratio"] > 0, f"references: {row}")
        for name in RATES:
            row = figures[name]
            expect("generator to sink" in row["references"], f"references of {name}")
            expect_equal(row["references"]["generator to sink"]["ratio"],
                         row["median"] / row["references"]["generator to sink"]["median"], f"ratio of {name}")
        expect(all(t["met"] == (t["measured"] <= t["bound"] if t["kind"] == "at most" else
                                t["measured"] >= t["bound"]) for t in found["targets"]), "verdicts")
        expect(found["targets"], "targets were judged")
    expect_equal(len(list((flow.path / "out").glob("*.json"))), 2, "files")
    expect_equal(left_running(flow.path), [], "processes")
    expect(not list((flow.path / "out").glob("run.*")), "its folder is gone")


def test_bench_tells_of_mail_in_disorder(flow):
    # All is sent twice, under the same ids.
    load = flow.program("fwload")
    status, text = bench(flow, build_folder(flow, fwload=f'{load} "$@" >/dev/null 2>&1\n{load} "$@"'), "--quick",
                         "accept-2k")
    expect_equal(status, 1, f"status:\n{text}\n")
    for where in ("accept-2k, generator to sink: duplicates 3000", "accept-2k: duplicates 3000"):
        expect(f"WRONG: {where}" in text, f"{where!r} in\n{text}")
    expect_equal(left_running(flow.path), [], "processes")


def test_bench_compares_two_builds(flow):
    folder = build_folder(flow)
    status, text = bench(flow, folder, "--quick", "--pairs", "2", "--compare", folder, folder, "accept-2k")
    expect_equal(status, 0, f"status:\n{text}\n")
    turns = [line.split()[-1] for line in text.splitlines() if line.startswith("bench: pair")]
    expect_equal(turns, ["old", "new", "old", "new"], "turns")
    row = next((line.split() for line in text.splitlines() if line.startswith("accept-2k accepted ")), None)
    expect(row, f"a row in\n{text}")
    expect(all(float(word) > 0 for word in row[3:6]) and row[7:9] == ["of", "2"], f"medians, ratio, pairs: {row}")
    expect(not (flow.path / "out/latest.json").exists(), "no figures of one build are written")
    expect_equal(left_running(flow.path), [], "processes")


def test_bench_fails_without_what_it_needs(flow):
    folder = build_folder(flow, flywheeld="echo no such luck; exit 3")
    status, text = bench(flow, folder, "--quick", "accept-2k")
    expect_equal(status, 2, f"status:\n{text}\n")
    expect("no such luck" in text, f"what flywheeld said in\n{text}")
    (folder / "flywheeld").unlink()
    status, text = bench(flow, folder, "--quick", "accept-2k")
    expect_equal(status, 2, f"status:\n{text}\n")
    expect(f"{folder}/flywheeld: No such file" in text, f"what is missing in\n{text}")
    status, text = bench(flow, folder, "no-such-case")
    expect_equal(status, 2, f"status:\n{text}\n")
    expect("relay-10k" in text, f"the names of cases in\n{text}")
    expect_equal(left_running(flow.path), [], "processes")
