#!/usr/bin/env python3
"""Checks thread classes with clang's thread safety analysis.

Public functions carry their class in the header (core/runtime/thread_class.h); for the analysis,
BOUND means that the caller must be on the agent's thread. Static functions carry none: here one that
calls a BOUND function, directly or through other static ones, is found to be BOUND itself. What
remains is a public function of another class that calls something BOUND: an error."""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

CLANG = ["clang", "-std=c11", "-D_GNU_SOURCE", "-DFLYWHEEL_TSA", "-I.", "-isystem", "/usr/include/libxml2",
         "-fsyntax-only", "-Wthread-safety",
         "-Wno-ignored-attributes", "-fno-color-diagnostics", "-x", "c", "-"]
FINDING = re.compile(r"^(\S+?):(\d+):\d+: warning: calling function '(\w+)' requires holding")
FUNCTION = re.compile(r"^[A-Za-z_][\w \t*]*?\b(\w+)\(")


def function_at(lines, number):
    """The function whose text holds line `number` (from 1): its name and whether it is static."""
    for i in range(number - 1, -1, -1):
        match = FUNCTION.match(lines[i])
        if match and not lines[i].rstrip().endswith(";"):
            head = lines[i]
            # A return type on a line of its own.
            static = head.startswith("static") or (i > 0 and lines[i - 1].startswith("static"))
            return match.group(1), static
    return None, False


def with_classes(lines, bound):
    out = []
    for line in lines:
        match = FUNCTION.match(line)
        if match and line.startswith("static") and match.group(1) in bound:
            line = "BOUND " + line
        out.append(line)
    return "\n".join(out)


def check(path):
    """Findings of one file, as lines of text."""
    lines = pathlib.Path(path).read_text().splitlines()
    bound = set()
    while True:
        source = f'#line 1 "{path}"\n' + with_classes(lines, bound)
        run = subprocess.run(CLANG, input=source, capture_output=True, text=True)
        findings = []
        found = set()
        for line in run.stderr.splitlines():
            match = FINDING.match(line)
            if not match:
                if " error: " in line:
                    return [line]
                continue
            if match.group(1) != path:
                findings.append(line)
                continue
            name, static = function_at(lines, int(match.group(2)))
            if static and name not in bound:
                found.add(name)
            else:
                findings.append(f"{path}:{match.group(2)}: {name}() is not BOUND, and calls "
                                f"{match.group(3)}(), which is")
        if not found:
            return findings
        bound |= found


def main():
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        findings = [line for lines in pool.map(check, sys.argv[1:]) for line in lines]
    for line in dict.fromkeys(findings):
        print(line)
    print(f"thread classes: {len(sys.argv) - 1} files, {len(set(findings))} findings")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
