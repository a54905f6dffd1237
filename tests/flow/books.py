"""The books of a daemon that is crashed again and again under load: what was answered 250, what came
to the sink, and what the main log says. One load and one sink last through all crashes.

What must hold in the end, when nothing is queued any more:

- Each message that was answered 250 arrived, whole, for each of its recipients.
- What arrived without an answer, and what arrived twice, was under way at a crash: a few for each
  connection. The load sends no message again, so what arrives twice was delivered twice.
- The log has no message received twice, and no delivery twice between one start and the next; what it
  tells of the last life of the daemon, which ended in order, is exactly what the sink saw of it.

Start reading at Books.run()."""

import os
import random
import re
import time

from flow import Daemon, Freezable, Sink, expect, expect_equal, wait_until
from seccomp import check_permitted, deny_io_uring, need_filter

SESSIONS = 20
# Each to a domain of its own, so each is a delivery of its own.
RECIPIENTS = 2
DOMAINS = 20
CONNECTIONS = 2 * DOMAINS
# Of what was queued at a start, no more than this can arrive before any of it is written down.
BACKLOG = 200
# "denied" is what "auto" becomes where io_uring is not permitted.
BACKENDS = ["uring", "epoll", "poll", "denied"]
# The load's time to try: longer than any test.
LONG_S = 100000


def new_seed():
    """Drawn anew each time, unless told by FLOW_SEED."""
    return int(os.environ.get("FLOW_SEED") or random.SystemRandom().randrange(1 << 32))


class Tail:
    """The complete lines that were added to a file since the last look."""

    def __init__(self, path):
        self.path = path
        self.offset = 0

    def lines(self):
        if not self.path.exists():
            return []
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            data = file.read()
        data = data[:data.rfind(b"\n") + 1]
        self.offset += len(data)
        return data.decode(errors="replace").splitlines()

    def rest(self):
        """What is there of a line that has not ended."""
        if not self.path.exists():
            return ""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read().decode(errors="replace")


class Load(Freezable):
    """build/fwload, which tries for ever. `number` makes its messages' ids differ from another one's."""

    def __init__(self, flow, number, port, sessions, size, accepted):
        self.process = flow.start(
            "fwload", "--to", f"127.0.0.1:{port}", "--messages", 1 << 40, "--connect-retry", LONG_S, "--sessions", sessions,
            "--recipients", RECIPIENTS, "--domains", DOMAINS, "--size", size, "--id-prefix", f"fw{number}",
            "--accepted-file", accepted)


class Books:
    """A sink, a daemon and a load, and what is known of each message. `disk` and `log_disk` (disks.py) are
    where spool and log are; without them these are folders."""

    def __init__(self, flow, seed, disk=None, log_disk=None, text="", sessions=SESSIONS):
        self.flow = flow
        self.seed = seed
        self.draws = random.Random(seed)
        self.disk = disk
        self.sessions = sessions
        self.denied = flow.backend == "denied"
        self.record, self.accepted_file = Tail(flow.path / "record"), Tail(flow.path / "accepted")
        self.sink = Sink(flow, "--record", self.record.path)
        self.daemon = Daemon(flow, sink_port=self.sink.port, backend="auto" if self.denied else None,
                             spool=disk and disk.path / "spool", log=log_disk and log_disk.path / "log",
                             start=False,
                             text=f'''max_outbound_connections = {CONNECTIONS // DOMAINS}
retry_interval = "1s" host_failure_retry = "1s"
{text}''')
        self.log = Tail(self.daemon.log / "mainlog")
        self.accepted = set()
        # Recipients for whom a message arrived, by its id.
        self.arrived = {}
        # Accepted, and not there for each recipient.
        self.open = set()
        self.duplicates = self.bad = 0
        # Recipients in `open` at all starts, as far as they count.
        self.backlog = 0
        self.crashes = 0
        self.recovered = 0
        # Of the log: R and D lines in all and of this life, messages received, torn lines.
        self.received = set()
        self.r_lines = self.d_lines = self.torn_lines = 0
        self.life_r = self.life_d = 0
        # What the last life began of a line when it was killed.
        self.torn = ""
        self.load = None
        self.start()
        self.start_load()

    # ---- programs ----

    def start_load(self):
        size = self.draws.choice((2048, 10240, 60000))
        self.load = Load(self.flow, self.crashes, self.daemon.port, self.sessions, size, self.accepted_file.path)

    def launch(self):
        if self.denied:
            need_filter()
            self.daemon.launch(prepare=deny_io_uring)
        else:
            self.daemon.launch()

    def start(self):
        if self.crashes > 0:
            self.sink.count_now("recipients")
            self.read()
        self.backlog += min(BACKLOG, RECIPIENTS * len(self.open))
        self.launch()
        wait_until(lambda: "running, process" in self.daemon.output() or self.daemon.ended(), "flywheeld to run")
        if self.denied:
            check_permitted(self.daemon.process)
        expect(not self.daemon.ended(), f"flywheeld ended at start:\n{self.daemon.output()}")
        found = re.search(r"(\d+) deliveries recovered.* (\d+) records damaged", self.daemon.output())
        self.recovered = int(found[1])
        if self.disk is None:
            expect_equal(int(found[2]), 0, "damaged records after a kill")

    def read(self):
        """Takes note of what was accepted and of what arrived."""
        fresh = self.accepted_file.lines()
        self.accepted.update(fresh)
        self.open.update(name for name in fresh if self.arrived.get(name, 0) != RECIPIENTS)
        for line in self.record.lines():
            name, recipients, _, _, whole, had = line.split(" ")
            self.arrived[name] = self.arrived.get(name, 0) + int(recipients) - int(had)
            if self.arrived[name] == RECIPIENTS:
                self.open.discard(name)
            self.duplicates += int(had)
            self.bad += whole != "ok"

    def read_log(self):
        """The lines of one life of the daemon, after its end."""
        delivered = set()
        self.life_r = self.life_d = 0
        lines = self.log.lines()
        if self.torn and lines[:1] == [self.torn]:
            # Of the life before, though it may have all its fields.
            self.torn_lines += 1
            del lines[0]
        self.torn = self.log.rest()
        for line in lines:
            fields = line.split("@")
            kind = fields[4] if len(fields) > 4 else ""
            if kind == "R" and len(fields) == 14:
                self.life_r += 1
                rcpt = (fields[1], fields[5], fields[6])
                expect(rcpt not in self.received, f"received twice, says the log: {line}")
                self.received.add(rcpt)
            elif kind == "D" and len(fields) == 12:
                self.life_d += 1
                expect((fields[1], fields[5]) not in delivered, f"delivered twice in one life, says the log: {line}")
                delivered.add((fields[1], fields[5]))
            elif kind not in ("T", "M1"):
                self.torn_lines += 1
        self.r_lines += self.life_r
        self.d_lines += self.life_d

    # ---- crashes ----

    def wait_accepted(self, count):
        """`count` more messages were answered 250."""
        wanted = len(self.accepted) + count

        def enough():
            self.read()
            expect(not self.daemon.ended(), f"flywheeld ended:\n{self.daemon.output()}")
            return len(self.accepted) >= wanted
        wait_until(enough, f"{count} more messages to be accepted")

    def moment(self, most_ms):
        time.sleep(self.draws.random() * most_ms / 1000)

    def kill(self):
        self.crashes += 1
        self.daemon.kill()
        self.read_log()

    def kill_at_random(self, most=600):
        """Under load, or now and then while it is starting."""
        self.wait_accepted(self.draws.randrange(1, most))
        self.moment(10)
        self.kill()
        if self.draws.random() < 0.2:
            self.launch()
            self.moment(30)
            self.kill()
        self.start()

    def cut_at_random(self, most=600):
        """The power goes while mail pours in. The sink stands still meanwhile, as what it took after the cut,
        which nobody can write down, would come again."""
        self.wait_accepted(self.draws.randrange(1, most))
        self.moment(10)
        self.sink.freeze()
        if not self.disk.honest:
            # What is answered from now on nobody hears.
            self.load.freeze()
            self.read()
        self.disk.cut(self.draws.randrange(1 << 32))
        self.moment(30)
        self.kill()
        if not self.disk.honest:
            self.load.process.kill()
            self.start_load()
        self.sink.thaw()
        self.disk.restore()
        self.start()

    # ---- the end ----

    def quiet_sink(self):
        """All of an earlier life has arrived."""
        wait_until(lambda: self.sink.connections() == 0, "the sink's connections to end")
        return self.sink.count_now("recipients")

    def settle(self):
        """A last crash, and a last life of the daemon after it."""
        self.kill()
        if self.disk is not None:
            self.disk.unmount()
            self.disk.mount()
        before = self.quiet_sink()
        self.read()
        accepted = len(self.accepted)
        self.start()
        self.wait_accepted(200)
        return self.finish(before, accepted)

    def finish(self, before=0, accepted=0):
        """The daemon's life ends in order: all that was accepted is delivered. `before` recipients and `accepted`
        messages were before it."""
        self.flow.stop(self.load.process)
        self.read()
        self.daemon.wait_for_rest()
        status, _ = self.daemon.terminate()
        expect_equal(status, 0, "exit status")
        self.read_log()
        stats = self.sink.stop()
        self.read()
        expect_equal(self.life_r, RECIPIENTS * (len(self.accepted) - accepted), "R lines of the last life")
        expect_equal(self.life_d, stats["recipients"] - before, "D lines of the last life")
        expect_equal(stats["duplicates"], self.duplicates, "duplicates by the sink's count and by its record")
        return stats

    def lost(self):
        return list(self.open)

    def extra(self):
        """What arrived though it was never answered."""
        return [name for name in self.arrived if name not in self.accepted]

    def balance(self, stats):
        lost, extra = self.lost(), self.extra()
        expect_equal(sorted(lost)[:10], [], f"some of {len(lost)} lost of {len(self.accepted)} accepted "
                     f"(arrived: {[self.arrived.get(name, 0) for name in sorted(lost)[:10]]})")
        expect_equal(self.bad, 0, "messages that arrived changed")
        halves = [name for name in extra if self.arrived[name] != RECIPIENTS]
        expect_equal(halves, [], "messages that arrived for some of their recipients only")
        # A session waits for one answer at a time.
        bound = self.crashes * self.sessions
        expect(len(extra) <= bound, f"{len(extra)} arrived without an answer; at most {bound} were under way")
        # At a crash: what the connections had in flight, and what had arrived since the commit before the last: of
        # what was accepted in that time, or of what was queued at the start.
        bound = self.crashes * (CONNECTIONS + 4 * self.sessions * RECIPIENTS) + self.backlog
        expect(self.duplicates <= bound, f"{self.duplicates} duplicates; at most {bound} were in flight")
        # A log is written behind what happens, never ahead of it.
        expect(self.d_lines <= stats["recipients"], f"{self.d_lines} D lines, {stats['recipients']} arrivals")
        expect(self.r_lines <= RECIPIENTS * len(self.arrived), f"{self.r_lines} R lines, {len(self.arrived)} messages")
        expect(self.torn_lines <= self.crashes, f"{self.torn_lines} torn lines in the log")
        if self.disk is not None:
            self.disk.check_losses()

    def summary(self):
        return (f"seed {self.seed}: {self.crashes} crashes, {len(self.accepted)} accepted, "
                f"{sum(self.arrived.values())} delivered, {self.duplicates} duplicates, "
                f"{len(self.lost())} lost, {len(self.extra())} unanswered, {self.r_lines} R and {self.d_lines} D lines, {self.torn_lines} torn")

    def run(self, cycles, crash, progress=None):
        """`cycles` times `crash`, then the balance."""
        with self:
            for cycle in range(cycles):
                crash()
                if progress:
                    progress(cycle + 1, self)
            self.balance(self.settle())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """However it went, what it was."""
        self.read()
        print(f"     {self.summary()}", flush=True)
