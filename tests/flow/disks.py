"""Real file systems on disks of a test's own, whose power can be cut. They are mounted where only
this process and its programs see them, so nothing is left when it ends in whatever way.

LoopDisk is a file behind a loop device; a cut shuts the file system down: nothing that is in the page
cache or in the journal's memory reaches the disk any more. The kernel is not honest about it: a sync
that is under way at a shutdown may succeed though its data is lost (seen with Linux 6.18, ext4 and
XFS, where blocks had not been written before). With a real power cut nobody would hear of that.

VolatileDisk has a write cache besides, of which a cut loses any part that was not flushed: see
volatile_disk.py. There the kernel tries, and fails, so its answers are worth something after the cut
too. Both are checked by what they must lose themselves: `Control`."""

import fcntl
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import time

from flow import LIBC, Skip, die_with_us, expect, wait_until

HERE = pathlib.Path(__file__).resolve().parent
CLONE_NEWNS = 0x00020000
MS_REC_PRIVATE = 0x4000 | 0x40000
# _IOR('X', 125, __u32), the same for ext4 and XFS; its argument says not to write the journal.
SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
# The least that mkfs.xfs makes; files are sparse.
SIZES = {"ext4": 200 << 20, "xfs": 310 << 20}

own_mounts_made = False


def own_mounts():
    """Mounts made from now on are seen by this process and its children only."""
    global own_mounts_made
    if own_mounts_made:
        return
    if LIBC.unshare(CLONE_NEWNS) != 0 or LIBC.mount(None, b"/", None, MS_REC_PRIVATE, None) != 0:
        raise Skip("a mount namespace is not permitted")
    own_mounts_made = True


def command(*words, what):
    """Runs what the machine may not permit or have."""
    if shutil.which(words[0]) is None:
        raise Skip(f"no {words[0]} here")
    done = subprocess.run([*map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        raise Skip(f"cannot {what}: {done.stderr.strip()}")


class Disk:
    """A file system in a file: `path` is where it is mounted."""

    # A sync that succeeds after the cut has made its data safe.
    honest = True

    def __init__(self, flow, kind, size=0, mkfs=()):
        self.kind = kind
        self.cuts = 0
        self.folder = flow.path / f"disk-{kind}-{len(flow.closers)}"
        self.path = self.folder / "mounted"
        self.path.mkdir(parents=True)
        own_mounts()
        self.device = self.folder / "image"
        with open(self.device, "wb") as file:
            file.truncate(size or SIZES[kind])
        flow.closers.append(self.close)
        self.prepare()
        command(f"mkfs.{kind}", "-q", *mkfs, self.device, what=f"make an {kind}")
        self.mount()
        self.control = Control(self.path)

    def prepare(self):
        """What comes before the file system."""

    def mount(self):
        command("mount", "-o", "loop", "-t", self.kind, self.device, self.path, what=f"mount an {self.kind}")

    def unmount(self):
        """What a killed program had open may take the kernel a moment to close."""
        wait_until(lambda: subprocess.run(["umount", self.path], capture_output=True).returncode == 0,
                   f"{self.path} to be unmounted")

    def cut(self, seed):
        """From now on nothing is written any more."""
        self.control.write(self.cuts)
        self.cuts += 1
        self.cut_power(seed)

    def cut_failed(self, seed):
        """The same for a disk on which no control can be written any more."""
        self.cut_power(seed)

    def restore(self):
        """The power is back; nobody may have a file open. The journal is recovered."""
        self.unmount()
        self.power_on()
        self.mount()
        self.control.check()

    def cut_power(self, seed):
        raise NotImplementedError

    def power_on(self):
        pass

    def check_losses(self):
        expect(self.cuts == 0 or self.control.lost > 0, f"{self.cuts} power cuts lost nothing that was not synced: they test nothing")

    def close(self):
        subprocess.run(["umount", "-l", self.path], capture_output=True)


class LoopDisk(Disk):
    """A cut is the file system's own shutdown."""

    honest = False

    def cut_power(self, seed):
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)


class VolatileDisk(Disk):
    """A disk with a write cache; also one that fails on command."""

    def prepare(self):
        image = self.device
        self.device = self.folder / "disk"
        self.device.touch()
        if not os.path.exists("/dev/fuse"):
            raise Skip("no /dev/fuse here")
        self.server = subprocess.Popen(
            [sys.executable, HERE / "volatile_disk.py", self.device, image], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=die_with_us)
        if self.server.stdout.readline() != "mounted\n":
            raise Skip(self.server.stderr.read().strip())

    def say(self, line):
        """A command of volatile_disk.py; counts by name."""
        self.server.stdin.write(line + "\n")
        self.server.stdin.flush()
        names = ("power", "writes", "flushes", "failures", "found", "lost")
        return dict(zip(names, map(int, self.server.stdout.readline().split())))

    def cut_power(self, seed):
        """Every other time at once: then the cache is likely empty, as it is on a disk that has failed. A program
        that never flushes is not waited for."""
        if self.control.number is not None and self.cuts % 2 == 1:
            self.say(f"cut {seed} at flush")
            end = time.monotonic() + 2
            while self.say("counts")["power"] and time.monotonic() < end:
                time.sleep(0.001)
        if self.say("counts")["power"]:
            self.say(f"cut {seed}")

    def power_on(self):
        self.say("on")

    def check_losses(self):
        super().check_losses()
        expect(self.cuts == 0 or self.say("counts")["found"] > 0, "power cuts found nothing in the disk's cache: they test nothing")

    def close(self):
        super().close()
        if hasattr(self, "server"):
            self.server.stdin.close()
            self.server.send_signal(signal.SIGKILL)
            self.server.wait()
            self.server.stdout.close()
            self.server.stderr.close()
            subprocess.run(["umount", "-l", self.device], capture_output=True)


class Control:
    """What is known of a cut beforehand: what was synced is there, and what was not is lost."""

    BYTES = 64 << 10

    def __init__(self, path):
        self.path = path
        self.lost = 0
        # Of the cut that is to be looked at.
        self.number = None
        # Like a spool's segment: blocks that are there already are written again.
        self.overwritten = path / "control-overwritten"
        self.write_synced(self.overwritten, b"o" * self.BYTES)

    @staticmethod
    def write_synced(path, data):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(fd, data)
        os.fsync(fd)
        os.close(fd)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)

    def write(self, number):
        self.number = number
        self.write_synced(self.path / f"control-synced-{number}", b"s" * self.BYTES)
        with open(self.path / f"control-unsynced-{number}", "wb") as file:
            file.write(b"u" * self.BYTES)
        with open(self.overwritten, "r+b") as file:
            file.write(b"n" * self.BYTES)

    def check(self):
        number, self.number = self.number, None
        if number is None:
            return
        synced = self.path / f"control-synced-{number}"
        expect(synced.exists() and synced.read_bytes() == b"s" * self.BYTES, "a power cut lost what was synced")
        unsynced = self.path / f"control-unsynced-{number}"
        kept = unsynced.exists() and unsynced.read_bytes() == b"u" * self.BYTES
        kept = kept or self.overwritten.read_bytes() == b"n" * self.BYTES
        # Anybody on this machine may have called sync(2), so one alone says nothing.
        self.lost += not kept
        self.write_synced(self.overwritten, b"o" * self.BYTES)
        synced.unlink()
        unsynced.unlink(missing_ok=True)
