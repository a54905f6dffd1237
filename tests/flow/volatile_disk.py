#!/usr/bin/env python3
"""A disk with a volatile write cache, whose power can be cut: a file served over FUSE, for a loop
device to stand on. What was written is read back, but is safe only once the cache was flushed.

Usage: volatile_disk.py MOUNTPOINT IMAGE. MOUNTPOINT is a regular file, which becomes the disk; IMAGE is
what is on its platters, a regular file too, which is changed in place. A line on standard input is a
command, and each is answered with a line:

    cut SEED            of the blocks in the cache each is written or not, or half; then all fails
    cut SEED at flush   the same in place of the next flush that has something to do: the worst moment
    on                  the power is back
    fail write N TEXT   the next N writes of data that has TEXT in it fail with EIO
    fail flush N        the next N flushes do
    counts              1 if there is power; writes, flushes, failures given, blocks that cuts found in the
                        cache, and of those, lost

The end of standard input is the end of the disk. Protocol: linux/fuse.h, version 7.31."""

import ctypes
import errno
import os
import random
import select
import stat
import struct
import sys

BLOCK = 4096
SECTOR = 512
WRITE_MAX = 1 << 20
LOOKUP, FORGET, GETATTR, SETATTR = 1, 2, 3, 4
OPEN, READ, WRITE, STATFS, RELEASE, FSYNC = 14, 15, 16, 17, 18, 20
FLUSH, INIT, INTERRUPT, BATCH_FORGET = 25, 26, 36, 42
DIRECT_IO = 1
BIG_WRITES, MAX_PAGES = 1 << 5, 1 << 22


class Disk:
    """What is written goes to a cache, by blocks; a flush moves it to the image."""

    def __init__(self, image):
        self.image = os.open(image, os.O_RDWR)
        self.size = os.fstat(self.image).st_size
        self.cache = {}
        self.power = True
        self.cut_at_flush = None
        self.fail_writes, self.fail_text, self.fail_flushes = 0, b"", 0
        # Where the last write ended, if it may be only the first part of what the loop device wrote.
        self.parted_at = -1
        self.writes = self.flushes = self.failures = self.found = self.lost = 0

    def read(self, offset, size):
        size = max(0, min(size, self.size - offset))
        data = bytearray(os.pread(self.image, size, offset))
        for block in range(offset // BLOCK, (offset + size + BLOCK - 1) // BLOCK):
            cached = self.cache.get(block)
            if cached is not None:
                at = block * BLOCK - offset
                begin, end = max(at, 0), min(at + BLOCK, size)
                data[begin:end] = cached[begin - at:end - at]
        return bytes(data)

    def write(self, offset, data):
        self.writes += 1
        # A loop device takes a write of which only the first part went well for a good one.
        whole = offset != self.parted_at
        self.parted_at = offset + len(data) if len(data) == WRITE_MAX else -1
        if self.fail_writes > 0 and whole and self.fail_text in data:
            self.fail_writes -= 1
            self.failures += 1
            raise OSError(errno.EIO, "told to fail")
        at = 0
        while at < len(data):
            block, skip = divmod(offset + at, BLOCK)
            size = min(BLOCK - skip, len(data) - at)
            if size < BLOCK:
                filled = bytearray(self.read(block * BLOCK, BLOCK))
                filled[skip:skip + size] = data[at:at + size]
                self.cache[block] = bytes(filled)
            else:
                self.cache[block] = bytes(data[at:at + size])
            at += size

    def flush(self):
        self.flushes += 1
        if self.cut_at_flush is not None and self.cache:
            self.cut(self.cut_at_flush)
            raise OSError(errno.EIO, "no power")
        if self.fail_flushes > 0:
            self.fail_flushes -= 1
            self.failures += 1
            raise OSError(errno.EIO, "told to fail")
        for block, data in self.cache.items():
            os.pwrite(self.image, data, block * BLOCK)
        self.cache.clear()

    def cut(self, seed):
        """The order in which a cache is emptied is the disk's own, so any part of it may be safe."""
        draws = random.Random(seed)
        share = draws.choice((0.0, 0.1, 0.5, 0.9))
        self.found += len(self.cache)
        for block, data in sorted(self.cache.items()):
            if draws.random() < share:
                torn = draws.random() < 0.1
                os.pwrite(self.image, data[:SECTOR * draws.randrange(1, BLOCK // SECTOR)] if torn else data,
                          block * BLOCK)
            else:
                self.lost += 1
        self.cache.clear()
        self.cut_at_flush = None
        self.power = False

    def command(self, line):
        words = line.split(None, 3)
        if words[0] == "cut" and words[2:] == ["at", "flush"]:
            self.cut_at_flush = int(words[1])
        elif words[0] == "cut":
            self.cut(int(words[1]))
        elif words[0] == "on":
            self.power = True
        elif words[:2] == ["fail", "write"]:
            self.fail_writes, self.fail_text = int(words[2]), words[3].encode()
        elif words[:2] == ["fail", "flush"]:
            self.fail_flushes = int(words[2])
        elif words[0] != "counts":
            return "what?"
        return f"{int(self.power)} {self.writes} {self.flushes} {self.failures} {self.found} {self.lost}"


class Server:
    """Answers the kernel. The root of this file system is its only file."""

    def __init__(self, disk):
        self.disk = disk
        self.fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)

    def mount(self, path):
        libc = ctypes.CDLL(None, use_errno=True)
        options = f"fd={self.fuse},rootmode={stat.S_IFREG | 0o600:o},user_id=0,group_id=0"
        if libc.mount(b"volatile_disk", os.fsencode(path), b"fuse", 0, options.encode()) != 0:
            sys.exit(f"cannot mount: {os.strerror(ctypes.get_errno())}")

    def attributes(self):
        size = self.disk.size
        return struct.pack("<QQQQQQIIIIIIIIII", 1, size, (size + 511) // 512, 0, 0, 0, 0, 0, 0,
                           stat.S_IFREG | 0o600, 1, 0, 0, 0, BLOCK, 0)

    def answer(self, unique, error, data=b""):
        try:
            os.write(self.fuse, struct.pack("<IiQ", 16 + len(data), -error, unique) + data)
        except OSError as gone:
            # The one who asked was interrupted.
            if gone.errno != errno.ENOENT:
                raise

    def serve(self, opcode, body):
        """The reply's data; what is not served raises."""
        disk = self.disk
        if opcode == INIT:
            return struct.pack("<IIIIHHIIHHI28x", 7, 31, 1 << 20, BIG_WRITES | MAX_PAGES, 16, 12, WRITE_MAX, 1,
                               WRITE_MAX // 4096, 0, 0)
        if opcode in (GETATTR, SETATTR):
            return struct.pack("<QII", 1, 0, 0) + self.attributes()
        if opcode == OPEN:
            return struct.pack("<QII", 0, DIRECT_IO, 0)
        if opcode in (RELEASE, FLUSH):
            return b""
        if opcode == STATFS:
            return struct.pack("<QQQQQIIII24x", disk.size // BLOCK, 0, 0, 1, 0, BLOCK, 255, BLOCK, 0)
        if opcode not in (READ, WRITE, FSYNC):
            raise OSError(errno.ENOSYS, "not served")
        if not disk.power:
            raise OSError(errno.EIO, "no power")
        if opcode == FSYNC:
            disk.flush()
            return b""
        _, offset, size = struct.unpack_from("<QQI", body)
        if opcode == READ:
            return disk.read(offset, size)
        disk.write(offset, body[40:40 + size])
        return struct.pack("<II", size, 0)

    def request(self):
        request = os.read(self.fuse, WRITE_MAX + BLOCK)
        _, opcode, unique = struct.unpack_from("<IIQ", request)
        if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
            return
        try:
            self.answer(unique, 0, self.serve(opcode, request[40:]))
        except OSError as error:
            self.answer(unique, error.errno)

    def run(self):
        commands = b""
        while True:
            ready = select.select([self.fuse, 0], [], [])[0]
            if 0 in ready:
                data = os.read(0, BLOCK)
                if not data:
                    return
                commands += data
                while b"\n" in commands:
                    line, commands = commands.split(b"\n", 1)
                    print(self.disk.command(line.decode()), flush=True)
            if self.fuse in ready:
                try:
                    self.request()
                except OSError as error:
                    # Unmounted.
                    if error.errno == errno.ENODEV:
                        return
                    raise


def main():
    server = Server(Disk(sys.argv[2]))
    server.mount(sys.argv[1])
    print("mounted", flush=True)
    server.run()


if __name__ == "__main__":
    main()
