"""Ports that programs under test and measurement listen on."""

import contextlib
import os
import random
import socket


class Ports:
    """Ports for one process. Not among those that the kernel gives to whoever connects (from 32768 on): a program
    beside this one may open thousands before a port is bound. And from a block that no other process draws from,
    as a port is free until it is bound: whose the block is says a name in the kernel, which ends with him."""

    FIRST, BLOCKS, SIZE = 10000, 44, 500

    def __init__(self):
        self.owner = os.getpid()
        self.claim = None
        self.block = next((b for b in random.sample(range(self.BLOCKS), self.BLOCKS) if self.claims(b)), None)
        if self.block is None:
            raise OSError("other tests and benchmarks have all ports")
        self.next = random.randrange(self.SIZE)

    def claims(self, block):
        self.claim = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError):
            self.claim.bind(f"\0flywheel-ports-{block}")
            return True
        self.claim.close()
        return False

    def draw(self):
        self.next = (self.next + 1) % self.SIZE
        return self.FIRST + self.block * self.SIZE + self.next


PORTS = []


def free_port():
    """One that nobody listens on, nor will."""
    if not PORTS or PORTS[-1].owner != os.getpid():
        PORTS.append(Ports())
    while True:
        port = PORTS[-1].draw()
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port
