#!/usr/bin/env python3
"""Runs the flow tests: functions test_* of tests/flow/test_*.py, in order of file and line.

A test takes a Flow. Attributes that its decorators set: `backends` (run once for each multiplexor
back end), `short` (also in the short form, for sanitizers). The last line tells the counts."""

import argparse
import importlib
import pathlib
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import flow  # noqa: E402


def cases(short, only):
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
                yield function, backend


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
        error = traceback.format_exc() if not isinstance(e, flow.Failure) else str(e)
    trouble = f.close()
    if trouble:
        error += "\n" + "\n".join(trouble)
    name = function.__name__ if backend == "auto" else f"{function.__name__} ({backend})"
    verdict = "FAIL" if error else "SKIP" if skipped else "ok  "
    print(f"{verdict} {name} ({time.monotonic() - began:.1f} s){skipped}", flush=True)
    if error:
        print(error, flush=True)
        daemons = [p for p in f.programs if "flywheeld" in str(p.args[-3:])]
        for process in daemons[-3:]:
            print("---- flywheeld said:\n" + f.output(process)[-3000:], flush=True)
        if keep:
            print(f"kept: {f.path}")
            return verdict
    f.remove()
    return verdict


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default="release")
    parser.add_argument("--only", default="", help="tests whose name, or file, contains this")
    parser.add_argument("--short", action="store_true", help="only those marked short")
    parser.add_argument("--keep", action="store_true", help="keep the folders of failed tests")
    parser.add_argument("--result", help="write \"passed failed\" to this file")
    arguments = parser.parse_args()
    verdicts = [run_case(function, backend, arguments.variant, arguments.keep)
                for function, backend in cases(arguments.short, arguments.only)]
    passed, failed, skipped = (verdicts.count(v) for v in ("ok  ", "FAIL", "SKIP"))
    print(f"flow tests, {arguments.variant}: {passed} passed, {failed} failed"
          + (f", {skipped} skipped" if skipped else ""))
    if arguments.result:
        pathlib.Path(arguments.result).write_text(f"{passed} {failed}\n")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
