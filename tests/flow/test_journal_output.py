"""Journals that flywheeld writes: what they have beside the files, who follows them while mail flows, kills,
and what is configured of them."""

import json
import os
import random
import re

import books
import jlog
import test_journal
from disks import LoopDisk
from flow import Daemon, expect, expect_equal, wait_until
from peer import Peer
from test_disk import Ballast, wait_counter
from test_events import check, validate, wait_events, wait_text
from test_journal import Program, bodies, run

HELLO = "Subject: hello\r\n\r\nhello\r\n"
MAIN = ' log { main = ( "file:mainlog" "jlog:main.jlog" ) }'
# Records of a message to so many: an R for each, of some 100 bytes, and a D when it is delivered.
MANY = 100
HELD = "suspend_delivery = true"
# `make kill-journals` takes 100.
KILLS = int(os.environ.get("FLOW_KILLS", 10))


def main_journal(text):
    return f'{MAIN} journal "main.jlog" {{ {text} }}'


class Journal(test_journal.Books):
    """What is whole in a daemon's journal whose segments are all kept."""

    def __init__(self, path):
        super().__init__(path)
        self.path = path
        self.kept = {}

    def all(self):
        found = []
        for log in self.journal.segments():
            closed = log < self.journal.meta()[0]
            records = self.kept.get(log) or self.records(log)
            if closed:
                self.kept[log] = records
            found += records
        return found

    def begin_record(self, dice):
        """What a kill may leave of a write: a part of a record at the end, if there is none yet."""
        last = self.journal.segment(self.journal.segments()[-1])
        whole = sum(jlog.HEADER.size + len(r.encode()) for r in self.records(int(last.name, 16)))
        record = jlog.HEADER.pack(jlog.MAGIC, 1, 2, 60) + b"torn" * 15
        if last.stat().st_size == whole:
            with last.open("ab") as file:
                file.write(record[:dice.randrange(1, len(record))])


def to_many(name):
    return [f"{name}-{i}@many.test" for i in range(MANY)]


def wait_for_records(path, count):
    """The first `count` records, or more."""
    journal = Journal(path)
    wait_until(lambda: path.exists() and len(journal.all()) >= count, f"{count} records in {path.name}")
    return journal.all()


# ---- what is there ----


def test_journals_have_what_files_have(flow):
    said = {"gone": "550 5.1.1 no such user", "later": "451 4.2.1 later"}
    peer = Peer(flow, rcpt=lambda x: said.get(x.rcpt.split("@")[0], True))
    daemon = Daemon(flow, sink_port=peer.port, text='''generate_bounces = false retry_interval = "1h"
        log { main = ( "file:mainlog" "jlog:main.jlog" "json:events.jlog" ) bounce = ( "json:events.jlog" ) }
        journal "main.jlog" { subscribers = ( "theirs" ) }
        custom_logger "ids" { delivery_logfile = "jlog:ids.jlog" delivery_format = "%i %r" }''')
    client = daemon.connect()
    ids = [client.mail([f"to{i}@away.test", "gone@away.test", "later@away.test"], body=HELLO)[1].split()[-1]
           for i in range(20)]
    daemon.wait_lines("D", 20)
    daemon.wait_lines("P", 20)
    daemon.wait_lines("T", 20)
    expect_equal(daemon.terminate()[0], 0, "exit status")
    lines = (daemon.log / "mainlog").read_text().splitlines()
    expect_equal(run(flow, "read", daemon.log / "main.jlog").splitlines(), lines, "what flywheel log reads")
    expect_equal(bodies(jlog.Reader(daemon.log / "main.jlog", "theirs").read()), lines, "what theirs reads")
    expect_equal(sorted(Journal(daemon.log / "ids.jlog").all()),
                 sorted(f"{id_} to{i}" for i, id_ in enumerate(ids)), "what the custom logger wrote")
    events = Journal(daemon.log / "events.jlog").all()
    (daemon.log / "events.json").write_text("".join(f"{e}\n" for e in events))
    validate(daemon)
    # A bounce is wanted by both logs, and one object is enough.
    for kind, count in (("reception", 60), ("delivery", 20), ("transient_failure", 20), ("bounce", 20)):
        expect_equal(len(wait_events(daemon, kind, count)), count, f"events {kind}")
    check(wait_events(daemon, "bounce")[0], {"recipient": "gone@away.test", "code": 550, "bounce_class": 10})
    expect(not (daemon.log / "bouncelog").exists(), "a bouncelog that nobody wants")


test_journals_have_what_files_have.short = True


def test_a_subscriber_follows_while_mail_flows(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port,
                    text=main_journal('segment_size = "8K" subscribers = ( "billing" "late" )'))
    path = daemon.log / "main.jlog"
    reader = Program(flow, "read", path, "-S", "billing", "--follow")
    clients = [daemon.connect() for _ in range(2)]
    for number in range(5):
        for i, client in enumerate(clients):
            expect_equal(client.mail(to_many(f"{number}-{i}"), body=HELLO)[0], 250, "reply")
        # It is there while the next ones come, and in the end.
        wait_until(lambda: len(reader.lines()) >= number * 2 * MANY, "the subscriber to keep up")
    records = 5 * 2 * MANY * 2
    wait_text(daemon, "mainlog", records)
    expect_equal(daemon.terminate()[0], 0, "exit status")
    lines = (daemon.log / "mainlog").read_text().splitlines()
    wait_until(lambda: len(reader.lines()) >= len(lines), f"{len(lines)} records")
    reader.process.terminate()
    reader.end()
    expect_equal(reader.lines(), lines, "what the subscriber saw")
    # Who comes later has all of it, in segments that are kept for him.
    last = jlog.Journal(path).meta()[0]
    expect_equal(jlog.Journal(path).segments(), list(range(last + 1)), "segments that are kept")
    expect_equal(run(flow, "read", path, "-S", "late").splitlines(), lines, "what the other one saw")
    expect_equal(jlog.Journal(path).segments(), [last], "segments when all have read them")


# ---- kill -9 ----


def killed(flow, daily, journal, dice):
    """Mail, a subscriber behind it, and the end of both."""
    before = journal.all()
    begun = journal.number(*journal.journal.checkpoint("billing"))
    reader = Program(flow, "read", journal.path, "-S", "billing", "--follow")
    daily.wait_accepted(dice.randrange(1, 300))
    wait_until(reader.lines, "a record to be read")
    seen_before = journal.all()
    expect_equal(seen_before[:len(before)], before, "records of earlier lives")
    daily.kill()
    there = journal.all()
    expect_equal(there[:len(seen_before)], seen_before, "records of before the kill")
    if dice.random() < 0.5:
        journal.begin_record(dice)
    if dice.random() < 0.5:
        # It may wait for the rest of a record that never comes.
        daily.start()
        daily.wait_accepted(1)
        wait_until(lambda: begun + len(reader.lines()) > len(there), "records of the next life")
        reader.kill()
    else:
        reader.kill()
        daily.start()
    now = journal.all()
    expect_equal(now[:len(there)], there, "records after the start")
    lines = reader.lines()
    expect_equal(lines, now[begun:begun + len(lines)], "what the subscriber saw")
    done = journal.number(*journal.journal.checkpoint("billing"))
    expect(begun <= done <= begun + len(lines), f"checkpoint {done}, from {begun}, after {len(lines)} records")


def test_kills_of_flywheeld_tear_no_record(flow):
    seed = books.new_seed()
    dice = random.Random(seed)
    text = main_journal('segment_size = "64K" subscribers = ( "billing" "all" )')
    with books.Books(flow, seed, text=text) as daily:
        journal = Journal(daily.daemon.log / "main.jlog")
        for _ in range(KILLS):
            killed(flow, daily, journal, dice)
        daily.balance(daily.settle())
    found = journal.all()
    for line in found:
        fields = line.split("@")
        expect(len(fields) == {"R": 14, "D": 12}.get(fields[4]) or fields[4] in ("T", "M1"), f"a torn record: {line}")
    last = daily.life_r + daily.life_d
    lines = (daily.daemon.log / "mainlog").read_text(errors="replace").splitlines()
    expect_equal(found[-last:], lines[-last:], "records of the last life")
    # Theirs finds no fault in what was left at each end.
    expect_equal(bodies(jlog.Reader(journal.path, "all").read()), found, "what theirs reads")
    begun = journal.number(*journal.journal.checkpoint("billing"))
    expect_equal(run(flow, "read", journal.path, "-S", "billing").splitlines(), found[begun:], "the rest")


# ---- what is configured ----


def test_drops_who_never_reads_at_the_size_limit(flow):
    daemon = Daemon(flow, text=HELD + main_journal('size_limit = "100K" subscribers = ( "dead" "live" )'))
    path = daemon.log / "main.jlog"
    reader = Program(flow, "read", path, "-S", "live", "--follow")
    client = daemon.connect()
    for number in range(30):
        expect_equal(client.mail(to_many(number), body=HELLO)[0], 250, "reply")
        wait_until(lambda: len(reader.lines()) >= (number + 1) * MANY, f"records of message {number}")
    wait_counter_of(daemon, "dropped_subscribers", 1)
    said = str(daemon.console("errors"))
    expect('"dead" does not keep up' in said and '"dead" was dropped' in said and "live" not in said, said)
    expect("dropped" in run(flow, "read", path, "-S", "dead", wanted=1), "the dead one is not told")
    expect_equal(daemon.terminate()[0], 0, "exit status")
    size = sum(p.stat().st_size for p in path.glob("0*"))
    expect(size <= 100 << 10, f"{size} bytes")
    lines = (daemon.log / "mainlog").read_text().splitlines()
    wait_until(lambda: len(reader.lines()) >= len(lines), f"{len(lines)} records")
    reader.process.terminate()
    reader.end()
    expect_equal(reader.lines(), lines, "what the live one saw")


def subscribers_of(flow, path):
    return {row["subscriber"]: row for row in json.loads(run(flow, "subscribers", path, "--json"))}


def test_tells_who_was_dropped_of_the_gap(flow):
    daemon = Daemon(flow, text=HELD + main_journal('size_limit = "100K" subscribers = ( "dead" )'))
    path = daemon.log / "main.jlog"
    client = daemon.connect()
    for number in range(30):
        expect_equal(client.mail(to_many(number), body=HELLO)[0], 250, "reply")
    wait_counter_of(daemon, "dropped_subscribers", 1)
    daemon.terminate()
    expect_equal(subscribers_of(flow, path), {}, "who is there after the drop")
    daemon.start()
    wait_until(lambda: '"dead" is back: dropped at 00000000:00000000' in daemon.output(), "stderr to tell")
    wait_until(lambda: "is back" in str(daemon.console("errors")), "the errors to tell")
    notice = subscribers_of(flow, path)["dead"]["notice"]
    said = re.fullmatch(r"dropped at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ, lost at least (\d+) records, (\d+) bytes", notice)
    expect(said is not None and int(said[1]) > 0 and int(said[2]) > 0, f"the notice: {notice}")
    expect("dropped at" in run(flow, "subscribers", path), "the notice for people")
    run(flow, "read", path, "-S", "dead")
    expect_equal(subscribers_of(flow, path)["dead"]["notice"], None, "the notice after reading")
    run(flow, "repair", path)
    expect_equal(daemon.terminate()[0], 0, "exit status")


def wait_counter_of(daemon, name, least):
    """A counter of the main journal."""
    def value():
        return daemon.counters("log.main.jlog.*")[f"log.main.jlog.{name}"]
    wait_until(lambda: value() >= least, f"{name} of the journal to be {least}")
    return value()


def test_begins_a_segment_at_the_size_that_it_was_told(flow):
    for size, several in (("4K", True), ("1M", False)):
        daemon = Daemon(flow, name=size, text=HELD + main_journal(f'segment_size = "{size}"'))
        path = daemon.log / "main.jlog"
        client = daemon.connect()
        for number in range(4):
            client.mail(to_many(number), body=HELLO)
        wait_for_records(path, 4 * MANY)
        segments = jlog.Journal(path).segments()
        expect((len(segments) > 5) == several and len(segments) >= 1, f"{len(segments)} segments of {size}")
        wait_counter_of(daemon, "segments", len(segments))
        largest = max((path / f"{log:08x}").stat().st_size for log in segments)
        expect(not several or largest < 5 << 10, f"a segment of {largest} bytes")


def test_syncs_a_journal_as_it_was_told(flow):
    for sync in ("never", "segment", "batch"):
        daemon = Daemon(flow, name=sync, text=HELD + main_journal(f'segment_size = "4K" sync = "{sync}"'))
        client = daemon.connect()
        for number in range(4):
            client.mail(to_many(number), body=HELLO)
            # Written in several batches at least.
            wait_for_records(daemon.log / "main.jlog", (number + 1) * MANY)
        segments = wait_counter_of(daemon, "segments", 6)
        # As counted by segments: none, each that is full, or each batch, of which a segment has one at least.
        syncs = wait_counter_of(daemon, "syncs", {"never": 0, "segment": segments - 1, "batch": segments}[sync])
        expect(syncs >= segments if sync == "batch" else syncs == {"never": 0, "segment": segments - 1}[sync],
               f"{syncs} syncs of {segments} segments, {sync}")
        expect_equal(daemon.terminate()[0], 0, "exit status")


# ---- a full disk ----


def test_records_wait_while_a_journal_has_no_space(flow):
    """What is written elsewhere goes on being written, until too much waits for the journal; then mail waits, too."""
    disk = LoopDisk(flow, "ext4", size=32 << 20)
    path = disk.path / "main.jlog"
    text = f'log {{ main = ( "file:mainlog" "jlog:{path}" ) }}'
    with books.Books(flow, books.new_seed(), text=text) as daily:
        daily.wait_accepted(100)
        ballast = Ballast(disk)
        ballast.take_space()
        wait_counter(daily, "log.write_errors", 1)
        daily.wait_accepted(300)
        expect("ENOSPC" in str(daily.daemon.console("errors")), "the console does not tell")
        counters = daily.daemon.counters("log.*")
        [waiting] = [n for name, n in counters.items() if name.endswith("main.jlog.waiting_records")]
        expect(waiting > 0, "no record waits")
        # So much waits that clients are not heard any more.
        wait_counter(daily, "scheduler.smtp_paused", 1)
        ballast.drop()
        daily.balance(daily.finish())
    lines = (daily.daemon.log / "mainlog").read_text().splitlines()
    expect_equal(Journal(path).all() == lines, True, f"the journal has the {len(lines)} lines of the file")


test_records_wait_while_a_journal_has_no_space.alone = True
