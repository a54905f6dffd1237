"""The watchdog, and word to the service manager: ready, all is well, stopping."""

import ctypes
import errno
import os
import pathlib
import signal
import socket

from flow import Daemon, Sink, Skip, expect, expect_equal, wait_until

# <sys/ptrace.h>
SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
WAIT_ALL = 0x40000000

HELLO = "Subject: hello\r\n\r\nhello\r\n"
# A thread that never rests, so that it is awake whenever it is stopped.
AWAKE = 'agent scheduler { count = 2  idle = "busy-spin" }'


class Manager:
    """The service manager's end: what it was told, in order."""

    def __init__(self, flow):
        self.path = str(flow.path / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)
        self.told = []
        flow.closers.append(self.socket.close)

    def hear(self):
        """What came since the last call."""
        new = []
        while True:
            try:
                new += self.socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                self.told += new
                return new

    def was_told(self, what):
        self.hear()
        return what in self.told


def thread_of(daemon, name):
    for task in pathlib.Path(f"/proc/{daemon.process.pid}/task").iterdir():
        if (task / "comm").read_text().strip() == name:
            return int(task.name)
    raise AssertionError(f"no thread {name}")


def ptrace(request, thread):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(request, thread, None, None) != 0:
        if request == SEIZE and ctypes.get_errno() == errno.EPERM:
            raise Skip("ptrace is not allowed here")
        raise OSError(ctypes.get_errno(), "ptrace")


def stop_thread(thread):
    """This one only; the other threads of its process go on."""
    ptrace(SEIZE, thread)
    ptrace(INTERRUPT, thread)
    os.waitpid(thread, WAIT_ALL)


def test_a_thread_that_stands_still_is_told_of_and_goes_on(flow):
    manager = Manager(flow)
    sink = Sink(flow)
    daemon = Daemon(flow, sink_port=sink.port, text='watchdog_stall = "1s"', extra_agents=AWAKE, start=False)
    daemon.start(prefix=["env", f"NOTIFY_SOCKET={manager.path}", "WATCHDOG_USEC=2000000"])
    wait_until(lambda: manager.was_told("READY=1"), "word that it is ready")
    wait_until(lambda: manager.was_told("WATCHDOG=1"), "word that all is well")
    thread = thread_of(daemon, "scheduler.1")
    stop_thread(thread)
    wait_until(lambda: "watchdog: thread scheduler.1 has been in one duty cycle for " in daemon.output(), "the stall")
    # Held by the debugger's end of this test, it does not run even a signal's handler.
    wait_until(lambda: "watchdog:   it does not tell its stack" in daemon.output(), "word of its stack")
    expect("(state t" in daemon.output(), "the state of the thread")
    # Others that a busy machine kept waiting go on by themselves.
    wait_until(lambda: daemon.counters("watchdog.*")["watchdog.watchdog_stalled"] == 1, "one thread to stand still")
    manager.hear()
    wait_until(lambda: daemon.output().count("has been in one duty cycle") > 1, "the second word of it")
    expect("WATCHDOG=1" not in manager.hear(), "the manager was told that all is well")
    ptrace(DETACH, thread)
    wait_until(lambda: "watchdog: thread scheduler.1 goes on, after " in daemon.output(), "its end")
    wait_until(lambda: "WATCHDOG=1" in manager.hear(), "word that all is well again")
    daemon.connect().mail("to@after.test", body=HELLO)
    wait_until(lambda: daemon.count("D") == 1, "mail after it")
    expect_equal(daemon.terminate()[0], 0, "exit status")
    expect(manager.was_told("STOPPING=1"), "the manager was not told of the stop")


def test_a_stall_aborts_the_program_and_nothing_is_lost(flow):
    sink = Sink(flow)
    daemon = Daemon(flow, text='watchdog_stall = "1s" watchdog_abort = "2s" suspend_delivery = true',
                    extra_agents=AWAKE, start=False)
    daemon.start(prefix=["prlimit", "--core=0"])
    for i in range(10):
        daemon.connect().mail(f"to@many{i}.test", body=HELLO)
    thread = thread_of(daemon, "scheduler.1")
    stop_thread(thread)
    wait_until(lambda: "watchdog: aborts the program" in daemon.output(), "the abort")
    # Gone with its process; it has to be waited for by whoever held it.
    os.waitpid(thread, WAIT_ALL)
    wait_until(daemon.ended, "its end")
    expect_equal(daemon.process.returncode, -signal.SIGABRT, "exit status")
    daemon.config.write_text(daemon.config.read_text().replace("suspend_delivery = true", "")
                             + f'gateway = "127.0.0.1:{sink.port}"\n')
    daemon.start()
    wait_until(lambda: daemon.count("D") == 10, "mail of before")


def test_nobody_watches_when_told_so(flow):
    daemon = Daemon(flow, text="watchdog_stall = 0")
    names = [(t / "comm").read_text().strip() for t in pathlib.Path(f"/proc/{daemon.process.pid}/task").iterdir()]
    expect("watchdog" not in names and "scheduler.0" in names, f"threads: {names}")
    expect_equal(daemon.terminate()[0], 0, "exit status")
    # The service manager waits for word all the same.
    manager = Manager(flow)
    daemon.start(prefix=["env", f"NOTIFY_SOCKET={manager.path}", "WATCHDOG_USEC=400000"])
    for _ in range(3):
        wait_until(lambda: "WATCHDOG=1" in manager.hear(), "word that all is well")
