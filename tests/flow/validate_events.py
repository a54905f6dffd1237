#!/usr/bin/python3
"""Holds events as JSON against their schema. Usage: validate_events.py SCHEMA FILE: FILE has one object a
line. Prints what is wrong, and exits 1 then; 77: jsonschema is not there."""

import json
import sys

try:
    import jsonschema
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(77)


def main():
    schema = json.load(open(sys.argv[1], encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    wrong = 0
    for line in open(sys.argv[2], encoding="utf-8"):
        for error in validator.iter_errors(json.loads(line)):
            print(f"{error.message} in {line.strip()}")
            wrong = 1
    sys.exit(wrong)


main()
