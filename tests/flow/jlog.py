"""Journals as libjlog of OmniTI Labs has them, a reader and a writer of our own from the format's facts
(jlog.h, jlog_private.h), beside the program's. What both say of the same directory is the format."""

import fcntl
import os
import struct
import time

MAGIC = 0x663A7318
META = struct.Struct("=4I")
HEADER = struct.Struct("=4I")
ID = struct.Struct("=2I")


def checkpoint_name(subscriber):
    return "cp." + subscriber.encode().hex()


class Locked:
    """A file, opened and locked as libjlog does it."""

    def __init__(self, path, flags=os.O_RDWR):
        self.fd = os.open(path, flags, 0o640)

    def __enter__(self):
        fcntl.lockf(self.fd, fcntl.LOCK_EX)
        return self.fd

    def __exit__(self, *_):
        os.close(self.fd)


class Journal:
    def __init__(self, path):
        self.path = path

    def meta(self):
        """storage_log, unit_limit, safety, magic"""
        return META.unpack((self.path / "metastore").read_bytes())

    def segments(self):
        return sorted(int(p.name, 16) for p in self.path.iterdir()
                      if len(p.name) == 8 and set(p.name) <= set("0123456789abcdef"))

    def segment(self, log):
        return self.path / f"{log:08x}"

    def checkpoint(self, subscriber):
        return ID.unpack((self.path / checkpoint_name(subscriber)).read_bytes())


class Writer(Journal):
    """One record at a time, as libjlog without a gathering buffer."""

    def __init__(self, path, unit_limit=4 << 20):
        super().__init__(path)
        if not path.exists():
            path.mkdir()
            (path / "metastore").write_bytes(META.pack(0, unit_limit, 1, MAGIC))
        (path / "pre_commit").write_bytes(struct.pack("=I", 0))

    def subscribe(self, subscriber, log=0, marker=0):
        (self.path / checkpoint_name(subscriber)).write_bytes(ID.pack(log, marker))

    def write(self, record, seconds=None, microseconds=0):
        while True:
            log, limit, _, magic = self.meta()
            with Locked(self.segment(log), os.O_RDWR | os.O_CREAT) as fd:
                size = os.fstat(fd).st_size
                if size < limit:
                    seconds = int(time.time()) if seconds is None else seconds
                    os.pwrite(fd, HEADER.pack(magic, seconds, microseconds, len(record)) + record, size)
                    return
            with Locked(self.path / "metastore") as fd:
                if META.unpack(os.pread(fd, 16, 0))[0] == log:
                    os.close(os.open(self.segment(log + 1), os.O_RDWR | os.O_CREAT, 0o640))
                    os.pwrite(fd, struct.pack("=I", log + 1), 0)


class Reader(Journal):
    """A subscriber, which reads by the index and brings it up to date, as libjlog's readers do. What is
    no record is an error."""

    def __init__(self, path, subscriber):
        super().__init__(path)
        self.subscriber = subscriber

    def resync(self, log):
        """The offsets of the segment's records, and whether it is closed."""
        storage_log = self.meta()[0]
        data = self.segment(log).read_bytes()
        with Locked(f"{self.segment(log)}.idx", os.O_RDWR | os.O_CREAT) as fd:
            index = os.pread(fd, os.fstat(fd).st_size, 0)
            offsets = [o for o, in struct.iter_unpack("=Q", index)]
            if len(offsets) > 1 and offsets[-1] == 0:
                return offsets[:-1], True
            at = 0
            if offsets:
                at = offsets[-1] + HEADER.size + HEADER.unpack_from(data, offsets[-1])[3]
            fresh = []
            while at + HEADER.size <= len(data):
                magic, _, _, length = HEADER.unpack_from(data, at)
                if magic != MAGIC:
                    raise ValueError(f"segment {log:08x} has no record at {at}")
                if at + HEADER.size + length > len(data):
                    break
                fresh.append(at)
                at += HEADER.size + length
            closed = log < storage_log
            if closed and at != len(data):
                raise ValueError(f"segment {log:08x} is closed and ends in {len(data) - at} bytes that are no record")
            entries = fresh + ([0] if closed and offsets + fresh else [])
            os.pwrite(fd, struct.pack(f"={len(entries)}Q", *entries), len(index))
            return offsets + fresh, closed

    def read(self):
        """The records after the checkpoint: (id, seconds, bytes)."""
        log, marker = self.checkpoint(self.subscriber)
        found = []
        while log <= self.meta()[0]:
            if not self.segment(log).exists():
                log, marker = log + 1, 0
                continue
            offsets, closed = self.resync(log)
            data = self.segment(log).read_bytes()
            for number in range(marker, len(offsets)):
                at = offsets[number]
                _, seconds, _, length = HEADER.unpack_from(data, at)
                body = data[at + HEADER.size:at + HEADER.size + length]
                found.append(((log, number + 1), seconds, body))
            if not closed:
                break
            log, marker = log + 1, 0
        return found

    def done(self, log, marker):
        """Moves the checkpoint, and removes what no subscriber needs."""
        with Locked(self.path / checkpoint_name(self.subscriber)) as fd:
            before = ID.unpack(os.pread(fd, 8, 0))[0]
            os.pwrite(fd, ID.pack(log, marker), 0)
        needed = min(ID.unpack(p.read_bytes())[0] for p in self.path.glob("cp.*"))
        for passed in range(before, log):
            if passed < needed:
                self.segment(passed).unlink(missing_ok=True)
                self.path.joinpath(f"{passed:08x}.idx").unlink(missing_ok=True)
