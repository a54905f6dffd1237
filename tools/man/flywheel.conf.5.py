#!/usr/bin/env python3
"""Prints flywheel.conf(5): the head, every option as `flywheeld --reference` tells it on standard input,
and the tail."""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
# Titles, in the order of the page, and the scopes whose options they hold.
SECTIONS = [
    ("The program", ["global"]),
    ("Spool", ["spool"]),
    ("Logs", ["log"]),
    ("Custom logs", ["custom_logger"]),
    ("Journals", ["journal"]),
    ("Name service", ["resolver"]),
    ("Policies of MTA-STS", ["mta_sts"]),
    ("Policy in Lua", ["scriptlet", "script", "datasource", "inbound_audit"]),
    ("Agents and groups", ["agent", "group"]),
    ("SMTP clients", ["esmtp_listener"]),
    ("Certificates by name", ["tls_certificate"]),
    ("HTTP", ["http_listener"]),
    ("Graphite", ["graphite"]),
    ("Sockets of listeners", ["control_listener"]),
    ("DKIM", ["dkim"]),
    ("Bindings", ["binding"]),
    ("Delivery", ["domain", "provider"]),
]


def escape(text):
    """Text as roff: hyphens that can be copied, and nothing that is taken for a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("^", "\\(ha")
    text = text.replace('"', "\\(dq")
    return "\\&" + text if text[:1] in ".'" else text


def section_of(scopes):
    """The last section that one of the scopes belongs to: most of what is global is for another scope."""
    names = {scope.split()[0] for scope in scopes.split(", ")}
    return [title for title, owners in SECTIONS if names & set(owners)][-1]


def entry(row):
    name, _, unit, default, scopes, when, expected, text = row
    title = f".BR {name} \" (\\fI{escape(scopes)}\\fR" + (", restart)\"" if when == "restart" else ")\"")
    value = expected[0].upper() + expected[1:]
    if unit != "-" and unit not in expected:
        value += f" ({unit})"
    lines = [".TP", title, escape(text), ".br", escape(value) + "."]
    return lines + [f"Default: \\fB{escape(default)}\\fR."] if default != "-" else lines


def main():
    rows = [[cell.strip() for cell in line.split("\t")] for line in sys.stdin]
    if not rows or any(len(row) != 8 for row in rows):
        sys.exit("flywheel.conf.5.py: wants the output of flywheeld --reference")
    sections = {title: [] for title, _ in SECTIONS}
    for row in rows:
        sections[section_of(row[4])].append(row)
    lines = []
    for title, members in sections.items():
        if members:
            lines.append(f".SS {title}")
            for row in members:
                lines += entry(row)
    sys.stdout.write((HERE / "flywheel.conf.5.head").read_text())
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.write((HERE / "flywheel.conf.5.tail").read_text())


if __name__ == "__main__":
    main()
