#!/usr/bin/env python3
"""Turns what `make -Bn` would run (on standard input) into compile_commands.json."""

import json
import os
import re
import sys

COMPILE = re.compile(r"^(?:gcc|clang) .* -c (\S+\.c) -o \S+$")

commands = []
for line in sys.stdin:
    match = COMPILE.match(line.strip())
    if match:
        commands.append({"directory": os.getcwd(), "command": line.strip(), "file": match.group(1)})
json.dump(commands, sys.stdout, indent=1)
print()
