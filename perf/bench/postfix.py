"""A Postfix of the benchmark's own: configuration, queue, ports and log are apart from the machine's."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess

from bench.ports import free_port
from bench.process import (BenchError, Program, answers, cpu_us, stat_fields, still_queued,
                           wait_until)

# What is set so that nothing but its own work slows it: as many servers as there are sessions, as
# many connections to the next hop, no pauses, no look-ups of names.
SETTINGS = """compatibility_level = 3.6
queue_directory = {place}/queue
data_directory = {place}/data
maillog_file = {place}/log
maillog_file_prefixes = {place}
myhostname = postfix.example
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
relayhost = [127.0.0.1]:{next_hop}
default_process_limit = {processes}
default_destination_concurrency_limit = {processes}
initial_destination_concurrency = {processes}
default_destination_rate_delay = 0s
in_flow_delay = 0
smtp_connection_cache_destinations = [127.0.0.1]:{next_hop}
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_error_sleep_time = 0
"""
# Those of the settings that say how it was not held back, for people.
TUNING = ("process limit and connections to the next hop: sessions + 20, at once; connections kept; "
          "in_flow_delay 0; no DNS, no look-up of peers; no limits for clients")
MASTER = "/usr/lib/postfix/sbin/master"
SERVICES = ("pickup", "cleanup", "qmgr", "rewrite trivial-rewrite", "bounce", "defer bounce",
            "trace bounce", "proxymap", "smtp", "relay smtp", "showq", "error", "retry error", "anvil",
            "scache", "tlsmgr", "verify", "flush")
SINGLE = ("pickup", "qmgr", "anvil", "scache", "tlsmgr", "verify")


def why_not():
    """Why there can be no Postfix here; nothing when there can."""
    if not shutil.which("postfix", path="/usr/sbin:/usr/bin"):
        return "Postfix is not installed"
    return "" if os.getuid() == 0 else "Postfix runs only for root"


def master_lines(port):
    yield f"127.0.0.1:{port} inet n - n - - smtpd"
    yield "postlog unix-dgram n - n - 1 postlogd"
    for service in SERVICES:
        name, program = (service.split() * 2)[:2]
        public = "n" if name in ("pickup", "cleanup", "qmgr", "flush", "showq") else "-"
        wake = {"pickup": "60", "qmgr": "300"}.get(name, "-")
        # cleanup and the others that work for every message are not limited, as by default.
        limit = "1" if name in SINGLE else "0" if name in ("cleanup", "bounce", "defer") else "-"
        yield f"{name} unix {public} - n {wake} {limit} {program}"


class Postfix:
    """Takes mail on `port` and relays all of it to `next_hop`."""

    def __init__(self, bench, name, next_hop, sessions):
        self.place = bench.public / f"postfix-{name}"
        self.config = self.place / "config"
        self.port = free_port()
        self.program = None
        for folder in ("config", "queue", "data"):
            (self.place / folder).mkdir(parents=True, exist_ok=True)
        shutil.chown(self.place / "data", "postfix")
        (self.config / "main.cf").write_text(SETTINGS.format(
            place=self.place, next_hop=next_hop, processes=sessions + 20), encoding="utf-8")
        (self.config / "master.cf").write_text("\n".join(master_lines(self.port)) + "\n",
                                               encoding="utf-8")

    def start(self):
        """Its master is our child, so that it and all of its processes end with us."""
        check = subprocess.run(["/usr/sbin/postfix", "-c", self.config, "check"], check=False,
                               capture_output=True, text=True)
        if check.returncode != 0:
            raise BenchError(f"postfix check: {check.stdout}{check.stderr}{self.said()}")
        self.program = Program([MASTER, "-c", self.config, "-s"], self.place / "postfix.out")
        self.program.wait_until(lambda: "daemon started" in self.said() and answers(self.port),
                                "Postfix to run")
        return self

    def said(self):
        log = self.place / "log"
        return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""

    def processes(self):
        """Those of the session that the master leads, the master among them."""
        found = []
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                state, _, _, session = stat_fields(folder.name)[:4]
                if int(session) == self.program.pid and state != "Z":
                    found.append(int(folder.name))
        return found

    def cpu_us(self):
        """Of all its processes, those that have ended included: the master has waited for them."""
        total = 0.0
        for pid in self.processes():
            # One that ends meanwhile is counted with the master, which is looked at last.
            if pid != self.program.pid:
                with contextlib.suppress(OSError):
                    total += cpu_us(pid, children=True)
        return total + cpu_us(self.program.pid, children=True)

    def queued(self):
        return sum(file.is_file() for queue in ("maildrop", "incoming", "active", "deferred")
                   for file in (self.place / "queue" / queue).rglob("*"))

    def wait_for_rest(self):
        """Waits until nothing is queued any more. What is wrong when that does not come."""
        return still_queued(self.program.check, self.queued)

    def stop(self):
        """Nothing of it is left, whatever came before."""
        if not self.program:
            return
        self.program.stop()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.program.kill()
        wait_until(lambda: not self.processes(), "Postfix's processes to end")
        (self.place / "log").unlink(missing_ok=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
