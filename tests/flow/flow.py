"""Real programs for flow tests: flywheeld, sink, load generator, and a client that speaks SMTP by
hand. Every program runs in a folder of the test's own, on ports of its own, and ends with it.
Waiting is always for a condition with a generous bound, never for a time."""

import contextlib
import ctypes
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

from bench.ports import free_port

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# Seconds after which a wait has failed; nothing waits that long when all is well.
PATIENCE = int(os.environ.get("FLOW_PATIENCE", "120"))
# By how many milliseconds some lag behind, as they may on a slow machine: FLOW_LAG="logs=1000", "peers=200" or
# "schedulers=20". A test that looks without waiting then fails wherever it runs.
LAG_MS = {name: int(ms) for name, ms in (word.split("=") for word in os.environ.get("FLOW_LAG", "").split())}


LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


def die_with_us():
    """In a child, before it becomes a program: killed tests leave nothing running."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


# Tests ask no name server of the machine's: nobody answers here, unless a test says otherwise.
NO_NAME_SERVER = 9


class Failure(Exception):
    """A test's expectation that did not hold."""


def expect(condition, text):
    if not condition:
        raise Failure(text)


def expect_equal(found, wanted, what):
    if found != wanted:
        raise Failure(f"{what}: found {found!r}, wanted {wanted!r}")


def wait_until(condition, what, patience=PATIENCE):
    """Polls until condition() is true; its value is returned."""
    end = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f"waited {patience} s for {what}")
        time.sleep(0.02)


Skip = type("Skip", (Exception,), {})


def is_socket(descriptor):
    """Of a file in /proc/PID/fd, which may be closed at any time."""
    try:
        return os.readlink(descriptor).startswith("socket:")
    except FileNotFoundError:
        return False


class Freezable:
    """A program that can be made to stand still."""

    def freeze(self):
        """SIGSTOP, and every thread has stopped."""
        self.process.send_signal(signal.SIGSTOP)
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task")
        wait_until(lambda: all((t / "stat").read_text().rsplit(")", 1)[1].split()[0] == "T" for t in tasks.iterdir()),
                   "all threads to stop")

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)


class Sink(Freezable):
    """build/fwsink with options; its statistics are polled from a file."""

    def __init__(self, flow, *options, port=None):
        self.flow = flow
        self.port = port or free_port()
        self.stats_file = flow.path / f"sink-{self.port}-{len(flow.programs)}.json"
        self.process = flow.start(
            "fwsink", "--listen", f"127.0.0.1:{self.port}", "--stats-file", self.stats_file, *options
        )
        wait_until(lambda: can_connect(self.port), "the sink to listen")

    def stats(self):
        try:
            return json.loads(self.stats_file.read_text())
        except (OSError, ValueError):
            return {}

    def count(self, key):
        return self.stats().get(key, 0)

    def connections(self):
        """How many are open now."""
        return sum(is_socket(f) for f in pathlib.Path(f"/proc/{self.process.pid}/fd").iterdir()) - 1

    def count_now(self, key):
        """One of the counts that its summary line has, without the delay of stats(); its record is as new."""
        before = len(self.flow.output(self.process).splitlines())
        self.process.send_signal(signal.SIGUSR1)
        lines = wait_until(lambda: self.flow.output(self.process).splitlines()[before:], "the sink's summary")
        words = lines[-1].split()
        return int(words[words.index(key) + 1])

    def stop(self):
        self.flow.stop(self.process)
        return self.stats()


def can_connect(port, host="127.0.0.1"):
    try:
        socket.create_connection((host, port), 1).close()
        return True
    except OSError:
        return False


class Daemon(Freezable):
    """build/flywheeld with a configuration of the test's: `text` is added to what every test needs."""

    def __init__(self, flow, text="", listener="", schedulers=2, backend=None, sink_port=None, start=True,
                 extra_agents="", name="", spool=None, log=None):
        self.flow = flow
        self.port = free_port()
        self.spool = spool or flow.path / f"spool{name}"
        self.log = log or flow.path / f"log{name}"
        self.control = flow.path / f"control{name}"
        backend = backend or flow.backend
        if not extra_agents:
            extra_agents = "".join(f'agent {agent} {{ coalesce = "{LAG_MS[name]}ms" }}\n'
                                   for name, agent in (("logs", "log"), ("schedulers", "scheduler")) if name in LAG_MS)
        gateway = f'gateway = "127.0.0.1:{sink_port}"\n' if sink_port else ""
        self.config = flow.path / f"flywheel{name}.conf"
        self.config.write_text(
            f"""hostname = "flow.test"
multiplexor = "{backend}"
agent scheduler {{ count = {schedulers} }}
{extra_agents}
spool {{ path = "{self.spool}" segment_size = "8M" min_free = "0" }}
log {{ path = "{self.log}" }}
control_listener {{ listen "{self.control}" {{ }} }}
esmtp_listener {{
    listen "127.0.0.1:{self.port}" {{ }}
    {listener}
}}
relay_hosts = ( "127.0.0.0/8" )
resolver {{ forwarders = ( "127.0.0.1@{NO_NAME_SERVER}" ) timeout = "3s" }}
{gateway}{text}
"""
        )
        self.process = None
        flow.daemons.append(self)
        if start:
            self.start()

    def start(self, prefix=(), prepare=die_with_us):
        self.launch(prefix, prepare)
        self.wait_for_start()

    def launch(self, prefix=(), prepare=die_with_us):
        """Starts it, and does not wait until it runs. `prepare` is called in the child before."""
        self.process = self.flow.start("flywheeld", "--config", self.config, prefix=prefix, prepare=prepare)

    def wait_for_start(self):
        """Its own word, as the kernel may keep a killed one's socket for a moment."""
        wait_until(lambda: "running, process" in self.output() or self.ended(), "flywheeld to run")
        expect(not self.ended(), f"flywheeld ended at start:\n{self.flow.output(self.process)}")

    def ended(self):
        return self.process.poll() is not None

    def kill(self):
        self.process.kill()
        self.process.wait()

    def terminate(self, patience=PATIENCE):
        """SIGTERM; the exit status and the seconds that it took."""
        began = time.monotonic()
        self.process.terminate()
        self.process.wait(patience)
        return self.process.returncode, time.monotonic() - began

    def console(self, *words, fail=False):
        """A console command's result."""
        run = subprocess.run(
            [self.flow.program("flywheel"), "-s", self.control, "--json", *words],
            capture_output=True, text=True, timeout=PATIENCE,
        )
        if fail:
            expect(run.returncode != 0, f"{' '.join(words)} did not fail: {run.stdout}")
            return run.stdout + run.stderr
        expect(run.returncode == 0, f"{' '.join(words)}: {run.stdout}{run.stderr}")
        return json.loads(run.stdout)

    def counters(self, pattern="*"):
        """Counters by name; those of several agents are summed under the name without the agent."""
        sums = {}
        for row in self.console("counters", pattern):
            name, value = row["counter"], row["value"]
            sums[name] = value
            short = re.sub(r"^(scheduler|spool|worker)\.\d+\.", r"\1.", name)
            if short != name:
                sums[short] = sums.get(short, 0) + value
        return sums

    def counter(self, name):
        """One counter of all agents of a kind, such as "scheduler.delivered"."""
        kind, _, rest = name.partition(".")
        return self.counters(f"{kind}*.{rest}")[name]

    def lost_wakeups(self):
        """Sleeps that timed out although work waited; 0 when there is no console to say so."""
        try:
            run = subprocess.run([self.flow.program("flywheel"), "-s", self.control, "--json", "counters",
                                  "*.park_timeout_with_work"], capture_output=True, text=True, timeout=10)
            return sum(row["value"] for row in json.loads(run.stdout))
        except (subprocess.TimeoutExpired, ValueError, TypeError):
            return 0

    def queued(self):
        return self.console("summary")["total_queue_size"]

    def wait_for_rest(self):
        """Nothing is queued any more."""
        wait_until(lambda: self.queued() == 0, "an empty queue")

    def wait_for_clients(self):
        """No SMTP session is left."""
        wait_until(lambda: self.counter("scheduler.smtp_sessions_open") == 0, "all sessions to end")

    def wait_lines(self, kind, count, file="mainlog"):
        """Waits for `count` log lines of a type; all of them. Those of several schedulers come in any order."""
        wait_until(lambda: len(self.lines(kind, file)) >= count, f"{count} {kind} lines in the {file}")
        return self.lines(kind, file)

    def wait_panic(self, text):
        """Waits for words in the paniclog."""
        path = self.log / "paniclog"
        wait_until(lambda: path.exists() and text in path.read_text(), f"{text!r} in the paniclog")

    def output(self):
        return self.flow.output(self.process)

    def lines(self, kind=None, file="mainlog"):
        """Log lines split at "@" (flow tests use no escaped ones), of one type or all."""
        path = self.log / file
        if not path.exists():
            return []
        rows = [line.split("@") for line in path.read_text(errors="replace").splitlines()]
        return [r for r in rows if kind is None or (len(r) > 4 and r[4] == kind)]

    def count(self, kind):
        """Lines of one type; quick, for large logs."""
        path = self.log / "mainlog"
        if not path.exists():
            return 0
        marker = f"@{kind}@".encode()
        return sum(1 for line in path.open("rb") if marker in line[:140])

    def connect(self, **options):
        return Client(self.port, **options)

    def resident_bytes(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Client:
    """SMTP by hand: bytes in, replies out."""

    def __init__(self, port, greet=True, timeout=PATIENCE, source="127.0.0.1"):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout, (source, 0))
        # What is sent in pieces goes out in pieces.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")
        if greet:
            expect_equal(self.reply()[0], 220, "banner")

    def send(self, data):
        self.socket.sendall(data.encode() if isinstance(data, str) else data)

    def reply(self):
        """(code, text of all lines); (0, "") at the end of the stream."""
        lines = []
        while True:
            try:
                line = self.file.readline()
            except (ConnectionError, TimeoutError) as error:
                return 0, str(error)
            if not line:
                return 0, ""
            text = line.decode(errors="replace").rstrip("\r\n")
            lines.append(text[4:])
            if text[3:4] != "-":
                return int(text[:3]), "\n".join(lines)

    def say(self, line, wanted=None):
        self.send(line + "\r\n")
        code, text = self.reply()
        if wanted is not None and code != wanted:
            raise Failure(f"{line!r} was answered {code} {text!r}, wanted {wanted}")
        return code, text

    def mail(self, recipients, sender="from@sender.test", body="Subject: test\r\n\r\nHello\r\n", ehlo=True):
        """A whole transaction; the last reply."""
        if ehlo:
            self.say("EHLO client.test", 250)
        self.say(f"MAIL FROM:<{sender}>", 250)
        for recipient in [recipients] if isinstance(recipients, str) else recipients:
            self.say(f"RCPT TO:<{recipient}>", 250)
        self.say("DATA", 354)
        self.send(body)
        return self.say(".")

    def ended(self):
        """Waits for the server to close; False when it talks on, or does not within the timeout."""
        try:
            return self.file.readline() == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def reset(self):
        """Closes with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        self.file.close()
        self.socket.close()


class Flow:
    """One test's folder and programs."""

    def __init__(self, name, variant, backend="auto"):
        self.name = name
        self.variant = variant
        self.backend = backend
        self.path = pathlib.Path(tempfile.mkdtemp(prefix=f"flywheel-{name}-"))
        self.programs = []
        self.daemons = []
        # Functions that close() calls first: peers, mounts.
        self.closers = []

    def program(self, name):
        return ROOT / "build" / self.variant / name

    def start(self, name, *arguments, prefix=(), prepare=die_with_us):
        output = open(self.path / f"{name}-{len(self.programs)}.out", "wb")
        process = subprocess.Popen(
            [*map(str, prefix), str(self.program(name)), *map(str, arguments)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.path, preexec_fn=prepare,
        )
        process.output = output.name
        output.close()
        self.programs.append(process)
        return process

    def run(self, name, *arguments, wanted=0, patience=PATIENCE * 5):
        """Runs to its end; what it printed."""
        process = self.start(name, *arguments)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            raise Failure(f"{name} did not end:\n{self.output(process)}") from None
        if wanted is not None and process.returncode != wanted:
            raise Failure(f"{name} ended with {process.returncode}:\n{self.output(process)}")
        return self.output(process)

    def load(self, daemon, *arguments, wanted=0, patience=PATIENCE * 5):
        """fwload against the daemon; its JSON result."""
        text = self.run("fwload", "--to", f"127.0.0.1:{daemon.port}", "--json", *arguments,
                        wanted=wanted, patience=patience)
        return json.loads(text[text.index("{"):])

    def output(self, process):
        return pathlib.Path(process.output).read_text(errors="replace")

    def stop(self, process, patience=PATIENCE):
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return process.returncode

    def close(self):
        """Ends what still runs; a sanitizer's report, an abort or a lost wake-up is a failure whatever
        the test saw. A daemon that has stopped told of the latter itself."""
        lost = sum(d.lost_wakeups() for d in self.daemons if d.process and not d.ended())
        for process in self.programs:
            if process.poll() is None:
                process.kill()
                process.wait()
        trouble = [f"{lost} lost wake-ups"] if lost else []
        for closer in reversed(self.closers):
            try:
                closer()
            except (Failure, subprocess.TimeoutExpired) as e:
                trouble.append(f"{closer.__qualname__}: {e}")
        for process in self.programs:
            text = self.output(process)
            for mark in ("ERROR: AddressSanitizer", "WARNING: ThreadSanitizer", "runtime error:",
                         "LeakSanitizer", "flywheel: fatal:", "lost wake-ups"):
                if mark in text:
                    trouble.append(text[text.index(mark):][:4000])
                    break
        return trouble

    def remove(self):
        shutil.rmtree(self.path, ignore_errors=True)


def limit_files(count):
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
