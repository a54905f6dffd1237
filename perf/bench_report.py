#!/usr/bin/env python3
"""Prints the table of one benchmark run and writes it as JSON.

Usage: bench_report.py CASES DIRECTORY, where each line of CASES is a case as perf/bench.sh writes
it. Exit status 1 when mail was lost, doubled, damaged or refused.
"""

import json
import os
import platform
import subprocess
import sys
import time

US_PER_TICK = 1e6 / os.sysconf("SC_CLK_TCK")
COLUMNS = "{:<24}{:>10}{:>11}{:>7}{:>9}{:>11}{:>8}{:>9}{:>9}{:>9}"


def command(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def processor():
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def commit():
    """The commit that was measured, with a plus sign when files were changed since."""
    name = command("git", "rev-parse", "--short", "HEAD")
    if not name:
        return "none"
    return name + ("+" if command("git", "status", "--porcelain", "--untracked-files=no") else "")


def about():
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {"machine": f"{os.cpu_count()} x {processor()}, {memory_gib:.1f} GiB",
            "kernel": platform.release(), "commit": commit(),
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


def troubles(case):
    """What a correct run does not show."""
    load, sink = case["load"], case["sink"]
    found = []
    if load["accepted"] != load["messages"]:
        missing = load["messages"] - load["accepted"]
        found.append(f"{missing} not accepted ({load['first_trouble']})")
    if sink:
        if sink["distinct"] < load["accepted"]:
            found.append(f"{load['accepted'] - sink['distinct']} lost")
        found += [f"{name} {sink[name]}"
                  for name in ("duplicates", "bad", "foreign", "protocol_errors") if sink[name]]
    return found


def complete(case, cases):
    """Adds the figures that follow from others."""
    load = case["load"]
    count = max(load["accepted"], 1)
    reference = next(c for c in cases if c["kind"] == "reference" and
                     all(c["load"][name] == load[name] for name in ("size", "sessions")))
    case["cpu_us_per_message"] = {
        "fwload": load["cpu_us_per_message"],
        "flywheeld": case.pop("flywheeld_ticks") * US_PER_TICK / count,
        "fwsink": case.pop("fwsink_ticks") * US_PER_TICK / count,
    }
    case["delivered_per_second"] = case["sink"]["messages_per_second"] if case["sink"] else None
    rate = case["delivered_per_second"] or load["messages_per_second"]
    case["ratio_to_reference"] = rate / max(reference["load"]["messages_per_second"], 1e-9)
    case["troubles"] = troubles(case)
    if case["sink"]:
        case["sink"].pop("domains", None)


def row(case):
    load, cpu, latency = case["load"], case["cpu_us_per_message"], case["load"]["latency_us"]
    delivered = case["delivered_per_second"]
    return COLUMNS.format(
        case["name"], f"{load['messages_per_second']:.0f}",
        f"{delivered:.0f}" if delivered is not None else "-",
        f"{case['ratio_to_reference']:.2f}",
        *(f"{cpu[name]:.1f}" if cpu[name] else "-" for name in ("fwload", "flywheeld", "fwsink")),
        *(f"{latency[name]:.0f}" for name in ("p50", "p99", "p999")))


def print_table(facts, cases):
    print()
    for name, value in facts.items():
        print(f"{name + ':':<9}{value}")
    print()
    print(f"{'accepted':>34}{'delivered':>11}{'share':>7}{'CPU us per message':>25}"
          f"{'submission latency, us':>30}")
    print(COLUMNS.format("case", "msgs/s", "msgs/s", "of ref", "fwload", "flywheeld", "fwsink",
                         "p50", "p99", "p99.9"))
    for case in cases:
        print(row(case))


def main():
    cases_file, directory = sys.argv[1:]
    with open(cases_file) as file:
        cases = [json.loads(line) for line in file]
    for case in cases:
        complete(case, cases)
    facts = about()
    print_table(facts, cases)
    for name in (time.strftime("%Y%m%d-%H%M%S"), "latest"):
        with open(os.path.join(directory, name + ".json"), "w") as file:
            json.dump(dict(facts, cases=cases), file, indent=1)
            file.write("\n")
    print(f"\nwritten to {os.path.join(directory, 'latest.json')}")
    wrong = [f"WRONG: {case['name']}: {text}" for case in cases for text in case["troubles"]]
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
