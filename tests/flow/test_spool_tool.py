"""build/flywheel-spool: what it says of a stopped spool, whole and damaged, and what a repair leaves."""

import hashlib
import re

from flow import Client, Daemon, expect, expect_equal, wait_until
from peer import Peer

HEADER_BYTES = 56
NAMES = ("ann", "bob", "cyd", "dan")


def text_of(name):
    return f"Subject: for {name}\r\n\r\nHello {name}\r\n.dot\r\n" + 40 * f"line for {name}\r\n"


def receive(daemon, names=NAMES):
    client = Client(daemon.port)
    for name in names:
        code, text = client.mail(f"{name}@there.test", body=text_of(name).replace("\r\n.", "\r\n.."))
        expect_equal(code, 250, f"reply to the mail for {name}: {text}")
    client.close()


class Spool:
    """A spool that flywheeld has left, and the tool."""

    def __init__(self, flow, daemon):
        self.flow = flow
        self.path = daemon.spool

    def tool(self, *words, wanted=0):
        return self.flow.run("flywheel-spool", "-d", self.path, *words, wanted=wanted)

    def segments(self):
        """(name, state, records, messages, states, needed bytes)"""
        rows = [line.split() for line in self.tool("list").splitlines() if line.startswith("seg-")]
        return [(r[0], r[1], *map(int, r[3:])) for r in rows]

    def records(self):
        """Messages that are needed: name of whom it is for, to file, offset, bytes, id."""
        found = {}
        for segment in self.segments():
            for line in self.tool("show", segment[0]).splitlines():
                row = re.match(r" *(\d+) +(\d+)  message  (\w{26})  needed .* to <(\w+)@", line)
                if row:
                    found[row[4]] = (self.path / segment[0], int(row[1]), int(row[2]), row[3])
        return found

    def damage(self, record, offset):
        file, place, _, _ = record
        with file.open("r+b") as f:
            f.seek(place + offset)
            byte = f.read(1)[0]
            f.seek(place + offset)
            f.write(bytes([byte ^ 0x10]))

    def damage_envelope(self, record):
        self.damage(record, HEADER_BYTES + 60)

    def damage_body(self, record):
        self.damage(record, record[2] - 30)

    def contents(self):
        return {f.name: hashlib.sha256(f.read_bytes()).digest() for f in self.path.glob("seg-*")}


def held(flow, **options):
    """A flywheeld that keeps all it gets."""
    return Daemon(flow, text="suspend_delivery = true", schedulers=1, **options)


def stopped(flow, names=NAMES):
    """One that received and was stopped; its spool; the records."""
    daemon = held(flow)
    receive(daemon, names)
    daemon.terminate()
    spool = Spool(flow, daemon)
    return daemon, spool, spool.records()


def test_shows_a_stopped_spool_and_changes_nothing(flow):
    daemon, spool, records = stopped(flow)
    before = spool.contents()
    expect_equal(set(records), set(NAMES), "messages that show names")
    sealed = [s for s in spool.segments() if s[1] == "sealed"]
    expect_equal([(s[2], s[3], s[4]) for s in sealed], [(4, 4, 0)], "records, messages, states of sealed segments")
    expect("4 messages with 4 deliveries wait" in spool.tool("list"), "list's sum")
    # By its number, too; and what is not there.
    name = sealed[0][0]
    expect_equal(spool.tool("show", name[4:12].lstrip("0") or "0"), spool.tool("show", name), "show by number")
    expect("no segment" in spool.tool("show", "77", wanted=1), "a segment that is not there")
    expect("no message" in spool.tool("cat", "01jd0000000000000000000000", wanted=1), "a message that is not there")
    expect("no message" in spool.tool("cat", "what", wanted=1), "what is no id")
    expect("4 records, 0 of them damaged" in spool.tool("check"), "check of a whole spool")
    spool.tool("extract", flow.path / "out")
    expect_equal(spool.contents(), before, "the spool, afterwards")
    daemon.start()
    wait_until(lambda: daemon.queued() == 4, "flywheeld to find all that was there before")


def test_takes_out_messages_as_they_were_sent(flow):
    _, spool, records = stopped(flow)
    out = flow.path / "out"
    spool.tool("extract", out)
    for name in NAMES:
        ident = records[name][3]
        mail = (out / f"{ident}.eml").read_bytes().decode()
        expect(mail.startswith("Received: "), f"{mail[:60]!r} has no Received field")
        expect(mail.endswith(text_of(name)), f"the mail for {name} is {mail[-300:]!r}")
        expect_equal(spool.tool("cat", ident).splitlines(), mail.splitlines(), f"cat of the mail for {name}")
        envelope = (out / f"{ident}.envelope").read_text()
        expect_equal(spool.tool("cat", "--envelope", ident), envelope, "cat --envelope")
        lines = envelope.splitlines()
        expect_equal(lines[0], f"message: {ident}", "first line of the envelope")
        expect_equal(lines[2:], ["from: <from@sender.test>", "delivery: 0, waits", f"to: <{name}@there.test>"], "envelope")
    expect_equal(len(list(out.iterdir())), 2 * len(NAMES), "files")
    expect_equal({f.stat().st_mode & 0o777 for f in out.iterdir()}, {0o600}, "modes")


def test_tells_who_of_a_deferred_message_still_waits(flow):
    peer = Peer(flow, rcpt=lambda x: "451 4.2.0 later\x1b[31m" if x.rcpt.startswith("late") else True)
    daemon = Daemon(flow, sink_port=peer.port, text='retry_interval = "1h"', schedulers=1)
    client = Client(daemon.port)
    for command in ("EHLO client.test", "MAIL FROM:<caf\u00e9\u009b31m@sender.test> SMTPUTF8", "RCPT TO:<late@there.test>",
                    "RCPT TO:<soon@there.test>", "DATA"):
        client.send(command.encode() + b"\r\n")
        expect(client.reply()[0] in (250, 354), f"{command} was refused")
    client.send("Subject: test\r\n\r\nHello\r\n")
    client.say(".", 250)
    client.mail("all@there.test", ehlo=False)
    client.close()
    daemon.wait_lines("T", 1)
    daemon.wait_lines("D", 2)
    daemon.terminate()
    spool = Spool(flow, daemon)
    records = spool.records()
    expect_equal(len(records), 1, "messages that wait")
    envelope = spool.tool("cat", "--envelope", next(iter(records.values()))[3])
    expect(re.search(r"^delivery: 0, deferred, attempts 1, due \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ: .*later\?\[31m$", envelope, re.M),
           f"{envelope!r} does not say why")
    expect("from: <caf\u00e9??31m@sender.test>" in envelope, f"the sender in {envelope!r}")
    expect("to: <late@there.test>" in envelope, "who waits")
    expect("over: <soon@there.test>" in envelope, "who does not")
    # The states are shown, and those of messages that are over are not needed.
    shown = "".join(spool.tool("show", s[0]) for s in spool.segments())
    expect(re.search(r"state +\w{26}  needed  delivery 0, attempts 1", shown), f"no state in {shown}")
    expect(re.search(r"done +\w{26}  - ", shown), f"no tombstone in {shown}")


def test_refuses_while_flywheeld_runs_and_holds_it_off(flow):
    daemon = held(flow)
    said = Spool(flow, daemon).tool("list", wanted=2)
    expect(f"in use by another process (number {daemon.process.pid})" in said, f"{said!r} names nobody")
    said = flow.run("flywheel-spool", "-d", flow.path / "nothing", "list", wanted=2)
    expect("No such file" in said and not (flow.path / "nothing").exists(), f"{said!r} of what is not there")
    said = flow.run("flywheel-spool", "-d", flow.path, "list", wanted=2)
    expect("is no spool" in said and not (flow.path / "lock").exists(), f"{said!r} of another directory")


def test_understands_its_command_line(flow):
    for words, said in (((), "no command"), (("what",), "unknown command"), (("show",), "number of arguments"),
                        (("list", "x"), "number of arguments"), (("cat", "x", "y"), "too many"), (("--what", "list"), "wrong option"),
                        (("list", "--repair", "x"), "--repair is check's"), (("check", "--envelope"), "--envelope is cat's")):
        expect(said in flow.run("flywheel-spool", *words, wanted=2), f"{words}: not {said!r}")
    text = flow.run("flywheel-spool", "--help")
    for command in ("list", "show SEGMENT", "check", "check --repair DIRECTORY", "cat ID", "extract DIRECTORY"):
        expect(f"\n    {command}\n" in text, f"--help has no {command!r}")
    expect(flow.run("flywheel-spool", "--version").startswith("flywheel-spool "), "--version")


def test_tells_of_damage_and_gives_up_what_belongs_to_nobody(flow):
    daemon, spool, records = stopped(flow)
    spool.damage_envelope(records["bob"])
    spool.damage_body(records["cyd"])
    before = spool.contents()
    said = spool.tool("check", wanted=1)
    bob, cyd = records["bob"][3], records["cyd"][3]
    expect(re.search(rf"message {bob}: damaged; whose it is, is not known", said), f"nothing of the envelope: {said}")
    expect(re.search(rf"message {cyd}: the body is damaged; .* to <cyd@there.test>", said), f"nothing of the body: {said}")
    expect("2 of them damaged" in said and "1 messages, 1 bodies, 0 states" in said, f"sums of {said}")
    expect_equal(spool.contents(), before, "the spool after a check")
    expect("the body is damaged" in spool.tool("cat", cyd, wanted=1), "cat of a damaged body")
    expect("damaged" in spool.tool("cat", bob, wanted=1), "cat of a damaged envelope")
    spool.tool("extract", flow.path / "out", wanted=1)
    expect_equal({f.suffix for f in (flow.path / "out").glob(f"{bob}.*")}, {".damaged"}, "files of a damaged envelope")
    expect_equal({f.suffix for f in (flow.path / "out").glob(f"{cyd}.*")}, {".damaged", ".eml", ".envelope"},
                 "files of a damaged body")

    file, place, length, _ = records["bob"]
    kept = file.read_bytes()[place:place + length]
    said = spool.tool("check", "--repair", flow.path / "given-up", wanted=1)
    expect(f"{records['bob'][0].name}: 1 messages given up" in said, f"{said!r} gives up nothing")
    expect_equal([f.name for f in (flow.path / "given-up").iterdir()], [f"{bob}.damaged"], "what was given up")
    expect_equal((flow.path / "given-up" / f"{bob}.damaged").read_bytes(), kept, "its bytes")
    said = spool.tool("check", wanted=1)
    expect("0 messages, 1 bodies, 0 states" in said, f"sums after the repair: {said}")
    expect_equal(set(spool.records()), {"ann", "cyd", "dan"}, "messages after the repair")

    # What is left goes its way, and its segment with it.
    daemon.start()
    expect("3 messages with 3 deliveries recovered" in daemon.output(), f"the start said {daemon.output()}")
    wait_until(lambda: daemon.queued() == 3, "the rest to be queued")
    for name in ("ann", "cyd", "dan"):
        daemon.console("message", "fail", records[name][3], "quiet")
    daemon.wait_for_rest()
    wait_until(lambda: daemon.counter("spool.segments_spare") > 0, "a segment to be free")
    daemon.terminate()
    expect_equal(sum(s[5] for s in spool.segments()), 0, "bytes that are still needed")
    expect("free" in [s[1] for s in spool.segments()], "nothing is free")
    expect_equal({s[0] for s in spool.segments()}, set(spool.contents()), "segments")
    expect("0 messages wait" in spool.tool("check"), "check of what is left")


def test_without_repair_a_damaged_envelope_keeps_its_segment(flow):
    daemon, spool, records = stopped(flow, ("ann", "bob"))
    spool.damage_envelope(records["bob"])
    daemon.start()
    wait_until(lambda: daemon.queued() == 1, "the whole one to be queued")
    daemon.console("message", "fail", records["ann"][3], "quiet")
    daemon.wait_for_rest()
    daemon.terminate()
    expect_equal([s[3] for s in spool.segments() if s[3]], [1], "messages in segments that are kept")
    spool.tool("check", "--repair", flow.path / "given-up")
    expect_equal(sum(s[5] for s in spool.segments()), 0, "bytes that are still needed")
    expect_equal(spool.tool("check").count("damaged: 0 messages, 0 bodies, 0 states"), 1, "check after the repair")


def test_reads_what_a_kill_left(flow):
    daemon = held(flow)
    receive(daemon)
    daemon.kill()
    spool = Spool(flow, daemon)
    # One that was being made.
    (daemon.spool / "seg-000000ff.fws").touch()
    before = spool.contents()
    expect_equal([s[1] for s in spool.segments() if s[3]], ["open"], "state of the segment that was written to")
    records = spool.records()
    said = spool.tool("check")
    expect_equal(spool.contents(), before, "the spool after a check")
    expect("warning" not in said, f"{said!r} complains")
    expect("read without an index, as the next start will: 1 segments, with 0 damaged" in said, f"{said!r} has no open one")
    # A torn end is no damage: it was promised to nobody.
    spool.damage_body(records["dan"])
    expect_equal(set(spool.records()), {"ann", "bob", "cyd"}, "messages before the torn end")
    spool.tool("check")
    # A header that is damaged is: the records tell what is there.
    with records["ann"][0].open("r+b") as f:
        f.seek(20)
        f.write(b"x")
    said = spool.tool("check", wanted=1)
    expect("the header of seg-" in said, f"{said!r} has no header")
    expect_equal(set(spool.records()), {"ann", "bob", "cyd"}, "messages of a segment without header")
    expect_equal(spool.contents().keys(), before.keys(), "files")
