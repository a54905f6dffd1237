"""fwmicro: every group runs, every row is printed, and rows know what they are compared with. The
figures of a quick run mean nothing; none is asserted."""

import json
import os
import subprocess

from flow import Failure

GROUPS = ["ring", "agent", "doorbell", "wheel", "commit", "fsync", "smtp", "reply", "address",
          "header", "mainlog", "message"]
# What other programs look for.
KNOWN = {"ring.hop.p50": "ns", "ring.hop.p99": "ns", "ring.one-way.64": "M/s", "fsync.p99": "ns",
         "doorbell.wake.p50": "ns", "wheel.expire": "ns", "commit.10k.64": "msg/s",
         "commit.10k.64.syncs": "/s", "smtp.data-10k": "MB/s", "reply.message.replies": "/s",
         "mainlog.r": "ns", "message.build": "ns"}


def micro(flow, *options):
    """Its standard output; it must end with 0 and have nothing to complain about."""
    done = subprocess.run([flow.program("fwmicro"), "--dir", str(flow.path), *options],
                          capture_output=True, text=True, timeout=300)
    if done.returncode != 0 or done.stderr:
        raise Failure(f"fwmicro {options}: status {done.returncode}, {done.stderr}")
    return done.stdout
