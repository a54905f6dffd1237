#!/usr/bin/env python3
"""Crashes a daemon under load for a long time: what test_crash.py and test_powercut.py do, with more
cycles and a line about each.

    tests/flow/cycles.py kill --cycles 200
    tests/flow/cycles.py powercut --cycles 50 --fs xfs --disk loop --seed 7

The last line has the books; the exit status is 0 when they balance."""

import argparse
import signal
import sys

import books
import disks
import flow

DISKS = {"loop": disks.LoopDisk, "volatile": disks.VolatileDisk}


def progress(cycle, b):
    b.read()
    print(f"cycle {cycle}: {len(b.accepted)} accepted, {sum(b.arrived.values())} delivered, "
          f"{b.recovered} queued at the start, {b.duplicates} duplicates", flush=True)


def run(f, arguments):
    kind = DISKS.get(arguments.disk)
    disk = kind(f, arguments.fs) if arguments.crash == "powercut" else None
    b = books.Books(f, arguments.seed, disk)
    b.run(arguments.cycles, b.cut_at_random if disk else b.kill_at_random, progress)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crash", choices=("kill", "powercut"))
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--fs", choices=sorted(disks.SIZES), default="ext4")
    parser.add_argument("--disk", choices=sorted(DISKS), default="volatile", help="what is cut (default %(default)s)")
    parser.add_argument("--backend", choices=("auto", "uring", "epoll", "poll", "denied"), default="auto")
    parser.add_argument("--seed", type=int, default=books.new_seed())
    parser.add_argument("--variant", default="release")
    parser.add_argument("--keep", action="store_true", help="keep the folder of a run that failed")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print(f"seed {arguments.seed}", flush=True)
    f = flow.Flow(arguments.crash, arguments.variant, arguments.backend)
    verdict = "interrupted"
    try:
        run(f, arguments)
        verdict = "ok"
    except flow.Skip as skip:
        verdict = f"SKIP: {skip}"
    except flow.Failure as failure:
        verdict = f"FAIL: {failure}"
    finally:
        for trouble in f.close():
            verdict = f"FAIL: {trouble}"
        what = arguments.crash + (f" {arguments.fs} {arguments.disk}" if arguments.crash == "powercut" else "")
        print(f"{what}, {arguments.cycles} cycles: {verdict}", flush=True)
        if arguments.keep and verdict.startswith("FAIL"):
            print(f"kept: {f.path}")
        else:
            f.remove()
    sys.exit(not verdict.startswith(("ok", "SKIP")))


if __name__ == "__main__":
    main()
