"""flywheeld, as the benchmark runs it: defaults but for where mail goes, and on few cores for how many
threads there are."""

import json
import os
import pathlib
import re
import shutil
import socket

from bench.ports import free_port
from bench.process import BenchError, Program, answers, still_queued

CONFIGURATION = """hostname = "bench.example"
spool {{ path = "{place}/spool"  durability = "{durability}"  min_free = "0" }}
log {{ path = "{place}/log" }}
relay_hosts = ( "127.0.0.0/8" )
control_listener {{ listen "{place}/control" {{ }} }}
esmtp_listener {{ listen "127.0.0.1:{port}" {{ }} }}
gateway = "127.0.0.1:{next_hop}"
{threads}
{text}
"""
# As README.md advises where cores are few: one thread for what works all the time.
FEW_CORES = 2
ONE_THREAD = """group all { }
agent scheduler { count = 1  group = all }
agent spool { group = all }
agent wheel { group = all }
agent log { group = all }"""
# What the relay cases set: as many connections to each of the domains as there were sessions.
RELAY = "max_outbound_connections = 20"


def usual_threads():
    return ONE_THREAD if len(os.sched_getaffinity(0)) <= FEW_CORES else ""


class Flywheel:
    """A flywheeld in a folder of its own, whose spool outlives it: a start finds the segments of the
    last run, as that of a server in service does."""

    def __init__(self, bench, name, next_hop, durability="synced", text=RELAY, threads=None):
        self.place = bench.work / f"flywheel-{name}"
        for folder in ("spool", "log"):
            (self.place / folder).mkdir(parents=True, exist_ok=True)
        self.build = bench.build
        self.port = free_port()
        self.config = self.place / "flywheel.conf"
        self.config.write_text(CONFIGURATION.format(
            place=self.place, durability=durability, port=self.port, next_hop=next_hop, text=text,
            threads=usual_threads() if threads is None else threads),
            encoding="utf-8")
        self.program = None

    def launch(self, prefix=()):
        """Starts it, and does not wait."""
        self.program = Program([self.build / "flywheeld", "--config", self.config],
                               self.place / "flywheeld.out", prefix)

    def start(self, prefix=(), patience=60):
        self.launch(prefix)
        self.program.wait_until(lambda: "running, process" in self.program.said() and
                                answers(self.port), "flywheeld to run", patience)
        return self

    @property
    def pid(self):
        return self.program.pid

    def cpu_us(self):
        return self.program.cpu_us()

    def console(self, *words):
        """A console command's result, without the cost of starting a program."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(60)
            s.connect(str(self.place / "control"))
            s.sendall(" ".join(words).encode() + b"\n")
            with s.makefile("rb") as file:
                answer = json.loads(file.readline())
        if not answer["ok"]:
            raise BenchError(f"console: {' '.join(words)}: {answer['error']}")
        return answer["result"]

    def counter(self, kind, name):
        """A counter, summed over all agents of a kind: of scheduler.0 and scheduler.1, or of log."""
        wanted = re.compile(re.escape(kind) + r"(\.\d+)?\." + re.escape(name))
        return sum(row["value"] for row in self.console("counters", f"{kind}*{name}")
                   if wanted.fullmatch(row["counter"]))

    def queued(self):
        return self.console("summary")["total_queue_size"]

    def resident_bytes(self):
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    def wait_for_rest(self):
        """Waits until nothing is queued any more. What is wrong when that does not come."""
        return still_queued(self.program.check, self.queued)

    def stop(self):
        """In order. Its log starts anew with the next run."""
        status = self.program.stop()
        if status != 0:
            raise BenchError(f"flywheeld ended with {status}:\n{self.program.said()}")
        shutil.rmtree(self.place / "log")
        (self.place / "log").mkdir()

    def remove(self):
        """Spool and all."""
        shutil.rmtree(self.place, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.program:
            self.program.kill()
