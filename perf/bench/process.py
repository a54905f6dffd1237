"""Programs that the benchmark starts. Every one ends with it, whatever way it ends itself."""

import contextlib
import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import time

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """Nothing can be measured: something is missing, or a program did not do its part."""


def die_with_us():
    """In a child, before it becomes a program: a benchmark that is killed leaves nothing running."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def answers(port):
    """True when a connection to the port can be made and greets."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as s:
            s.settimeout(5)
            return s.recv(3) == b"220"
    except OSError:
        return False


def wait_until(condition, what, patience=60, pause=0.02):
    """Polls until condition() is true; its value is returned."""
    end = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise BenchError(f"waited {patience} s in vain for {what}")
        time.sleep(pause)


def still_queued(check, queued, patience=30):
    """Waits until queued() is 0; check() stops everything when who has the queue has ended. Returns
    what is wrong when it stays, as a list."""
    end = time.monotonic() + patience
    while True:
        check()
        count = queued()
        if count == 0:
            return []
        if time.monotonic() > end:
            return [f"{count} still queued"]
        time.sleep(0.05)


def stat_fields(pid):
    """/proc/PID/stat from its third field on."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()


def cpu_us(pid, children=False):
    """CPU time of a process so far; with `children` that of those that it has waited for, too.

    The kernel's ticks are rounded down, and nanoseconds are kept only of threads that still live:
    both are lower bounds, and the greater one is the better."""
    fields = stat_fields(pid)
    ticks = sum(map(int, fields[11:13])) * TICK_US
    threads = 0.0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            threads += int((task / "schedstat").read_text(encoding="utf-8").split()[0]) / 1000
    ended = sum(map(int, fields[13:15])) * TICK_US if children else 0.0
    return max(ticks, threads) + ended


class Program:
    """A program that runs in a session of its own, so that a ^C reaches it only through us."""

    def __init__(self, arguments, output, prefix=()):
        self.name = pathlib.Path(str(arguments[0])).name
        self.output = pathlib.Path(output)
        with open(self.output, "wb") as file:
            try:
                self.process = subprocess.Popen(
                    [*map(str, prefix), *map(str, arguments)], stdin=subprocess.DEVNULL,
                    stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                    preexec_fn=die_with_us)
            except OSError as error:
                raise BenchError(f"{arguments[0]}: {error.strerror}") from None
        self.pid = self.process.pid

    def said(self):
        return self.output.read_text(encoding="utf-8", errors="replace")

    def ended(self):
        return self.process.poll() is not None

    def check(self):
        """Stops everything when the program ended by itself."""
        if self.ended():
            raise BenchError(f"{self.name} ended with {self.process.returncode}:\n{self.said()}")

    def wait_until(self, condition, what, patience=60, pause=0.02):
        def holds():
            self.check()
            return condition()
        return wait_until(holds, what, patience, pause)

    def wait(self, patience):
        """Waits for its end; its exit status."""
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self.name} did not end within {patience} s") from None

    def cpu_us(self):
        return cpu_us(self.pid)

    def stop(self, patience=60):
        """SIGTERM, and SIGKILL when that does not end it. Its exit status."""
        if not self.ended():
            self.process.terminate()
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode

    def kill(self):
        if not self.ended():
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
