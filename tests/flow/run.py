#!/usr/bin/env python3
"""Runs the flow tests: functions test_* of tests/flow/test_*.py, some at a time, each in one of a few
worker processes. What a test has to say is printed when it has ended, in one piece.

A test takes a Flow. Attributes of a test: `backends` (run once for each multiplexor back end), `short`
(also in the short form, for sanitizers); of a test or of its file: `alone` (when all others have ended).
The last line tells the counts."""

import argparse
import concurrent.futures
import contextlib
import faulthandler
import importlib
import io
import multiprocessing
import os
import pathlib
import subprocess
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "perf")]

import flow  # noqa: E402


def cases(short, only):
    """Names of file and function, back end, and whether it runs alone; in order of file and line."""
    for file in sorted(HERE.glob("test_*.py")):
        module = importlib.import_module(file.stem)
        functions = [f for n, f in vars(module).items()
                     if n.startswith("test_") and getattr(f, "__module__", "") == file.stem]
        for function in sorted(functions, key=lambda f: f.__code__.co_firstlineno):
            if only and only not in function.__name__ and only not in file.stem:
                continue
            if short and not getattr(function, "short", False):
                continue
            for backend in getattr(function, "backends", ["auto"]):
                alone = getattr(function, "alone", getattr(module, "alone", False))
                yield file.stem, function.__name__, backend, alone


def left_by(f):
    """What the test's daemons wrote of mail that did not go, and of trouble."""
    for daemon in f.daemons[-3:]:
        for name, kinds in (("mainlog", ("T", "P")), ("rejectlog", ()), ("paniclog", ())):
            path = daemon.log / name
            lines = path.read_text(errors="replace").splitlines() if path.exists() else []
            chosen = [line for line in lines if not kinds or line.split("@")[4:5] in [[k] for k in kinds]]
            if chosen:
                yield f"---- {path.parent.name}/{name} has" + "".join("\n" + line for line in chosen[-10:])


# No test takes as long, whatever it waits for: one that does waits without an end.
LIMIT_S = max(1800, 20 * flow.PATIENCE)


def run_case(function, backend, variant, keep):
    f = flow.Flow(function.__name__, variant, backend)
    began = time.monotonic()
    error = ""
    skipped = ""
    try:
        function(f)
    except flow.Skip as skip:
        skipped = f": {skip}"
    except Exception as e:  # a test may fail in any way
        # What a program said is the text of many, and it may be nothing.
        error = isinstance(e, flow.Failure) and str(e) or traceback.format_exc()
    trouble = f.close()
    if trouble:
        error += "\n" + "\n".join(trouble)
    name = function.__name__ if backend == "auto" else f"{function.__name__} ({backend})"
    verdict = "FAIL" if error else "SKIP" if skipped else "ok  "
    print(f"{verdict} {name} ({time.monotonic() - began:.1f} s){skipped}")
    if error:
        print(error)
        daemons = [p for p in f.programs if "flywheeld" in str(p.args[-3:])]
        for process in daemons[-3:]:
            print("---- flywheeld said:\n" + f.output(process)[-3000:])
        for text in left_by(f):
            print(text)
        if keep:
            print(f"kept: {f.path}")
            return verdict
    f.remove()
    return verdict


def work(file, name, backend, *options):
    """In a worker: one test's verdict, and all that it printed."""
    # Where each of its threads stands, and the end of the whole run, as this worker then ends.
    faulthandler.dump_traceback_later(LIMIT_S, exit=True)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        verdict = run_case(getattr(importlib.import_module(file), name), backend, *options)
    faulthandler.cancel_dump_traceback_later()
    return verdict, said.getvalue()


def finished(future):
    verdict, said = future.result()
    print(said, end="", flush=True)
    return verdict


def run_all(chosen, jobs, beside, *options):
    """Verdicts of the tests; `options` are run_case()'s last."""
    # Not nicely: where others want the processors, too, it would be waited for all the longer.
    other = subprocess.Popen(["sh", "-c", beside]) if beside else None
    # Workers end with us, and what they started with them.
    pool = concurrent.futures.ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), flow.die_with_us)
    try:
        futures = [pool.submit(work, *case, *options) for *case, alone in chosen if not alone]
        verdicts = [finished(future) for future in concurrent.futures.as_completed(futures)]
        if other:
            other.wait()
        return verdicts + [finished(pool.submit(work, *case, *options)) for *case, alone in chosen if alone]
    finally:
        pool.shutdown(wait=sys.exc_info()[0] is None, cancel_futures=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default="release")
    parser.add_argument("--only", default="", help="tests whose name, or file, contains this")
    parser.add_argument("--short", action="store_true", help="only those marked short")
    parser.add_argument("--keep", action="store_true", help="keep the folders of failed tests")
    # Most wait, for time, the disk or each other's programs.
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)) + 1,
                        help="tests at a time (default: processors + 1)")
    parser.add_argument("--beside", metavar="COMMAND",
                        help="runs a shell command beside the tests that do not run alone")
    parser.add_argument("--result", help="write \"passed failed\" to this file")
    arguments = parser.parse_args()
    chosen = list(cases(arguments.short, arguments.only))
    verdicts = run_all(chosen, arguments.jobs, arguments.beside, arguments.variant, arguments.keep)
    passed, failed, skipped = (verdicts.count(v) for v in ("ok  ", "FAIL", "SKIP"))
    print(f"flow tests, {arguments.variant}: {passed} passed, {failed} failed"
          + (f", {skipped} skipped" if skipped else ""))
    if arguments.result:
        pathlib.Path(arguments.result).write_text(f"{passed} {failed}\n")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
