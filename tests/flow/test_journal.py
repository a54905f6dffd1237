"""Journals: what `flywheel log` reads and writes beside a reader and a writer that know the format only; who
resumes where after kill -9; and what becomes of a subscriber that never reads."""

import json
import os
import random
import struct
import subprocess

import jlog
from books import new_seed
from flow import ROOT, die_with_us, expect, expect_equal, wait_until

CYCLES = 100
BATCH = 40


class Program:
    """`flywheel log ...` with a pipe into it, and its output in a file."""

    def __init__(self, flow, *words):
        self.path = flow.path / f"log-{len(flow.programs)}.out"
        self.said = flow.path / f"log-{len(flow.programs)}.err"
        with open(self.path, "wb") as out, open(self.said, "wb") as err:
            self.process = subprocess.Popen(
                [str(flow.program("flywheel")), "log", *map(str, words)], stdin=subprocess.PIPE,
                stdout=out, stderr=err, cwd=flow.path, preexec_fn=die_with_us)
        self.process.output = str(self.said)
        flow.programs.append(self.process)

    def put(self, *lines):
        self.process.stdin.write("".join(f"{line}\n" for line in lines).encode())
        self.process.stdin.flush()

    def lines(self):
        """Those that are whole."""
        return self.path.read_text().split("\n")[:-1]

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()

    def end(self, wanted=0):
        self.process.stdin.close()
        self.process.wait(60)
        expect_equal(self.process.returncode, wanted, f"exit status, after {self.said.read_text()!r}")


def run(flow, *words, wanted=0):
    return flow.run("flywheel", "log", *words, wanted=wanted)


def write(flow, path, lines, *options):
    program = Program(flow, "write", path, *options)
    program.put(*lines)
    program.end()


def numbered(first, end):
    return [f"record {n} {'x' * (n % 97)}." for n in range(first, end)]


def bodies(found):
    return [body.decode() for _, _, body in found]


# ---- beside others ----


def test_theirs_writes_the_vector(flow):
    """The bytes that the unit tests hold our writer to."""
    theirs = jlog.Writer(flow.path / "a.jlog", 48)
    for record in (b"one@1", b"", b'{"three":3}', b"four"):
        theirs.write(record, 1700000000, 7)
    theirs.subscribe("alice", 0, 1)
    theirs.subscribe("bob", 1, 1)
    jlog.Reader(theirs.path, "alice").read()
    vector = ROOT / "tests/unit/journals/two-segments"
    for file in vector.iterdir():
        expect_equal((theirs.path / file.name).read_bytes(), file.read_bytes(), file.name)


def test_theirs_reads_while_ours_writes(flow):
    path = flow.path / "a.jlog"
    ours = Program(flow, "write", path, "--segment-size", 2000, "-S", "theirs", "-S", "other")
    wait_until(lambda: (path / jlog.checkpoint_name("other")).exists(), "subscribers")
    theirs = jlog.Reader(path, "theirs")
    other = jlog.Reader(path, "other")
    seen = []
    for first in range(0, 1000, BATCH):
        ours.put(*numbered(first, first + BATCH))
        fresh = wait_until(theirs.read, f"records from {first} on")
        seen += bodies(fresh)
        theirs.done(*fresh[-1][0])
    ours.end()
    seen += bodies(theirs.read())
    expect_equal(seen, numbered(0, 1000), "what theirs saw")
    last = theirs.meta()[0]
    expect(last > 10 and theirs.segments() == list(range(last + 1)), f"nothing of {last} segments is removed")
    found = other.read()
    expect_equal(bodies(found), seen, "what the other saw")
    # The last one to pass removes them, by our hand or theirs.
    theirs.done(last, 0)
    other.done(5, 0)
    expect_equal(theirs.segments(), list(range(5, last + 1)), "segments after theirs")
    run(flow, "read", path, "-S", "other")
    expect_equal(theirs.segments(), [last], "segments after ours")


def test_ours_reads_what_theirs_wrote(flow):
    path = flow.path / "a.jlog"
    theirs = jlog.Writer(path, 1500)
    theirs.subscribe("ours")
    theirs.subscribe("theirs")
    reader = Program(flow, "read", path, "-S", "ours", "--follow")
    for line in numbered(0, 500):
        theirs.write(line.encode())
    wait_until(lambda: len(reader.lines()) >= 500, "500 records")
    reader.process.terminate()
    reader.end()
    expect_equal(reader.lines(), numbered(0, 500), "what ours saw")
    expect_equal(theirs.segments()[0], 0, "the segment that theirs still needs")
    # Two writers take turns, and we close what theirs has begun.
    write(flow, path, numbered(500, 700))
    for line in numbered(700, 800):
        theirs.write(line.encode())
    expect_equal(run(flow, "read", path, "-S", "ours").splitlines(), numbered(500, 800), "what ours saw then")
    found = jlog.Reader(path, "theirs").read()
    expect_equal(bodies(found), numbered(0, 800), "what theirs saw")
    jlog.Reader(path, "theirs").done(*found[-1][0])
    expect_equal(theirs.segments(), [theirs.meta()[0]], "segments that are left")


# ---- kill -9 ----


class Books:
    """What is whole in a journal whose segments are all kept."""

    def __init__(self, path):
        self.journal = jlog.Journal(path)
        self.closed = {}

    def records(self, log):
        """Of one segment, without what is torn at its end."""
        data = self.journal.segment(log).read_bytes()
        found = []
        at = 0
        while at + jlog.HEADER.size <= len(data):
            magic, _, _, length = jlog.HEADER.unpack_from(data, at)
            end = at + jlog.HEADER.size + length
            if magic != jlog.MAGIC or end > len(data):
                break
            found.append(data[at + jlog.HEADER.size:end].decode())
            at = end
        return found

    def count(self, log):
        if log not in self.closed:
            count = len(self.records(log))
            if log >= self.journal.meta()[0]:
                return count
            self.closed[log] = count
        return self.closed[log]

    def total(self):
        return sum(self.count(log) for log in self.journal.segments())

    def number(self, log, marker):
        """How many records are before and at a place."""
        return sum(self.count(other) for other in self.journal.segments() if other < log) + marker

    def tear(self, dice):
        """As a power cut does: the end of the last segment has a part of a record, or zeros."""
        record = jlog.HEADER.pack(jlog.MAGIC, 1, 2, 60) + b"torn" * 15
        with self.journal.segment(self.journal.segments()[-1]).open("ab") as f:
            f.write(dice.choice([record[:dice.randrange(1, len(record))], b"\0" * dice.randrange(1, 100)]))


def cycle(flow, path, books, dice, first):
    """Writes from record `first` on, and reads behind, until both are killed. Returns how many there are."""
    begun = books.number(*books.journal.checkpoint("reader"))
    writer = Program(flow, "write", path, "--acknowledge", "--segment-size", "20k",
                     "--sync", dice.choice(["segment", "batch"]))
    reader = Program(flow, "read", path, "-S", "reader", "--follow")
    wanted = dice.randrange(1, 4 * BATCH)
    last = first
    while last - first < wanted:
        writer.put(*numbered(last, last + BATCH))
        last += BATCH
    # Acknowledged now and then; the kills come while the rest is written and read.
    wait_until(lambda: writer.lines(), "a batch to be acknowledged")
    if dice.random() < 0.5:
        wait_until(lambda: reader.lines(), "a record to be read")
    for program in dice.sample([writer, reader], 2):
        program.kill()
    total = books.total()
    acknowledged = first + int(writer.lines()[-1])
    expect(acknowledged <= total <= last, f"{acknowledged} acknowledged, {total} there, {last} written")
    seen = reader.lines()
    expect_equal(seen, numbered(begun, begun + len(seen)), "what the reader saw")
    done = books.number(*books.journal.checkpoint("reader"))
    expect(begun <= done <= begun + len(seen), f"checkpoint {done}, from {begun}, after {len(seen)} records")
    if dice.random() < 0.5:
        books.tear(dice)
    return total


def test_kill_loses_no_record_and_shows_none_in_part(flow):
    seed = new_seed()
    print(f"seed {seed}")
    dice = random.Random(seed)
    path = flow.path / "a.jlog"
    write(flow, path, [], "-S", "reader", "-S", "all")
    books = Books(path)
    total = 0
    for _ in range(CYCLES):
        total = cycle(flow, path, books, dice, total)
        expect_equal(run(flow, "tail", path, "-n", 3).splitlines(), numbered(max(0, total - 3), total), "the end")
        flow.programs.clear()
    begun = books.number(*books.journal.checkpoint("reader"))
    expect_equal(run(flow, "read", path, "-S", "reader").splitlines(), numbered(begun, total), "what was left")
    # The last kill's torn end is cut off, and then theirs finds no fault in all of it.
    write(flow, path, numbered(total, total + 1))
    expect_equal(bodies(jlog.Reader(path, "all").read()), numbered(0, total + 1), "all records")
    print(f"{total} records, {books.journal.meta()[0] + 1} segments")


# ---- the commands ----


def test_read_checkpoints_and_counts(flow):
    path = flow.path / "a.jlog"
    write(flow, path, numbered(0, 100), "-S", "s", "--segment-size", "1k")
    expect_equal(run(flow, "read", path, "-S", "s", "-n", 30).splitlines(), numbered(0, 30), "30 records")
    expect_equal(run(flow, "read", path, "-S", "s", "--no-checkpoint").splitlines(), numbered(30, 100), "the rest")
    expect_equal(run(flow, "read", path, "-S", "s", "--count", 0), "", "no record")
    expect_equal(run(flow, "read", path, "-S", "s").splitlines(), numbered(30, 100), "the rest again")
    expect_equal(run(flow, "read", path, "-S", "s"), "", "and nothing then")
    # Without a subscriber: what is kept.
    kept = run(flow, "read", path).splitlines()
    expect_equal(kept, numbered(100 - len(kept), 100), "what is kept")
    expect(0 < len(kept) < 100, f"segments that were passed are gone: {len(kept)}")


def test_output_that_fails_moves_no_checkpoint(flow):
    path = flow.path / "a.jlog"
    write(flow, path, numbered(0, 100), "-S", "s")
    full = subprocess.run(f"{flow.program('flywheel')} log read {path} -S s >/dev/full", shell=True,
                          capture_output=True)
    expect_equal(full.returncode, 2, f"a full disk: {full.stderr}")
    expect_equal(jlog.Journal(path).checkpoint("s"), (0, 0), "the checkpoint")


def test_tail_follows(flow):
    path = flow.path / "a.jlog"
    writer = Program(flow, "write", path, "--segment-size", "1k")
    writer.put(*numbered(0, 50))
    wait_until(lambda: path.exists() and Books(path).total() == 50, "50 records")
    tail = Program(flow, "tail", path, "-n", 5, "--follow")
    wait_until(lambda: len(tail.lines()) == 5, "the last 5")
    for n in range(50, 80):
        writer.put(*numbered(n, n + 1))
        wait_until(lambda: len(tail.lines()) == n - 44, f"record {n}")
    tail.process.terminate()
    tail.end()
    expect_equal(tail.lines(), numbered(45, 80), "what was shown")
    writer.end()
    expect_equal(run(flow, "tail", path).splitlines(), numbered(70, 80), "10 if not said")


def test_json_is_as_it_is_or_fields(flow):
    path = flow.path / "a.jlog"
    theirs = jlog.Writer(path)
    theirs.write(rb"1700000000@id@@@T@a\@b@\\\n\x01" + b"\xff@", 1700000000, 5)
    theirs.write(b'{"type":"delivery", "n":1}', 1700000001)
    first, second = run(flow, "read", path, "--json").splitlines()
    expect_equal(json.loads(first),
                 {"id": "00000000:00000001", "at": "2023-11-14T22:13:20.000005Z",
                  "fields": ["1700000000", "id", "", "", "T", "a@b", "\\\n\x01�", ""]}, "text")
    expect_equal(second, '{"type":"delivery", "n":1}', "JSON")


def test_subscribers_come_and_go(flow):
    path = flow.path / "a.jlog"
    write(flow, path, numbered(0, 100), "--segment-size", "1k")
    run(flow, "subscribers", path, "add", "slow")
    run(flow, "subscribers", path, "add", "late", "--end")
    expect("already" in run(flow, "subscribers", path, "add", "slow", wanted=1), "there is one already")
    rows = {row["subscriber"]: row for row in json.loads(run(flow, "subscribers", path, "--json"))}
    expect_equal({n: r["behind_records"] for n, r in rows.items()}, {"slow": 100, "late": 0}, "behind")
    run(flow, "read", path, "-S", "slow", "-n", 40)
    stats = json.loads(run(flow, "stats", path, "--json"))
    lag = {row["subscriber"]: (row["behind_records"], row["behind_bytes"]) for row in stats["subscribers"]}
    left = sum(len(line) + jlog.HEADER.size for line in numbered(40, 100))
    expect_equal(lag, {"slow": (60, left), "late": (0, 0)}, "behind, by stats")
    journal = jlog.Journal(path)
    expect_equal(stats["segments"], len(journal.segments()), "segments")
    expect_equal(stats["size_bytes"], sum(p.stat().st_size for p in path.glob("0*")), "bytes")
    expect_equal(stats["segment_size_bytes"], 1024, "size of a segment")
    expect_equal(stats["first_record"], f"{journal.segments()[0]:08x}:00000001", "first")
    write(flow, path, numbered(100, 101), "--segment-size", "1k")
    expect_equal(run(flow, "read", path, "-S", "late").splitlines(), numbered(100, 101), "what the late one gets")
    run(flow, "subscribers", path, "remove", "slow")
    expect_equal(journal.segments(), [journal.meta()[0]], "segments that only the slow one needed")
    expect("no such subscriber" in run(flow, "read", path, "-S", "slow", wanted=1), "it is gone")
    run(flow, "subscribers", path, "remove", "slow", wanted=1)


def test_limit_drops_who_never_reads_and_tells_it(flow):
    path = flow.path / "a.jlog"
    write(flow, path, [], "-S", "dead", "-S", "live")
    reader = Program(flow, "read", path, "-S", "live", "--follow")
    writer = Program(flow, "write", path, "--size-limit", "40k")
    for first in range(0, 1000, BATCH):
        writer.put(*numbered(first, first + BATCH))
        wait_until(lambda: len(reader.lines()) >= first + BATCH, f"records from {first} on")
    writer.end()
    said = writer.said.read_text()
    expect('"dead" does not keep up' in said and '"dead" was dropped' in said and "live" not in said, said)
    reader.process.terminate()
    reader.end()
    expect_equal(reader.lines(), numbered(0, 1000), "what the live one saw")
    size = sum(p.stat().st_size for p in path.glob("0*"))
    expect(size <= 40 << 10, f"{size} bytes")
    expect("dropped" in run(flow, "read", path, "-S", "dead", wanted=1), "the dead one is told")


def test_repair_of_a_damaged_journal(flow):
    path = flow.path / "a.jlog"
    write(flow, path, numbered(0, 100), "--segment-size", "1k", "-S", "s")
    data = bytearray((path / "00000001").read_bytes())
    data[0:4] = b"\0\0\0\0"
    (path / "00000001").write_bytes(data)
    (path / "metastore").write_bytes(struct.pack("=4I", 0, 0, 9, 9))
    Books(path).tear(random.Random(1))
    before = run(flow, "read", path, "-S", "s", "--no-checkpoint")
    expect("are no records and were passed over" in before, before)
    found = json.loads(run(flow, "repair", path, "--json"))
    expect(found["damaged_bytes"] > 0 and found["cut_off_bytes"] > 0 and found["metastore_repaired"], str(found))
    after = run(flow, "read", path, "-S", "s", "--no-checkpoint").splitlines()
    expect_equal(after, [line for line in before.splitlines() if line.startswith("record ")], "the same records")
    expect_equal(len(after), 99, "records")
    expect_equal(bodies(jlog.Reader(path, "s").read()), after, "what theirs sees")
    again = json.loads(run(flow, "repair", path, "--json"))
    expect_equal(set(again.values()), {0, False}, "a second repair")


def test_wrong_use_of_log_commands(flow):
    (flow.path / "logs").mkdir()
    os.environ["FLYWHEEL_LOGS"] = str(flow.path / "logs")
    write(flow, flow.path / "logs" / "b.jlog", numbered(0, 1))
    expect_equal(run(flow, "read", "b.jlog").splitlines(), numbered(0, 1), "found where logs are")
    for words, said, status in (
            (("read",), "which journal?", 2), (("read", "b.jlog", "x"), "too many words", 2),
            (("read", "b.jlog", "--count", "x"), "--count wants a number", 2),
            (("read", "b.jlog", "-S", "a", "-S", "b"), "one subscriber", 2),
            (("subscribers", "b.jlog", "add"), "add NAME", 2), (("subscribers", "b.jlog", "x", "y"), "add NAME", 2),
            (("write", "b.jlog", "--sync", "often"), "--sync wants", 2),
            (("write", "b.jlog", "--segment-size", "9g"), "below 4G", 2),
            (("stats", "none.jlog"), "No such file", 1), (("repair", "none.jlog"), "No such file", 1),
            (("read", "none.jlog"), "No such file", 1), (("write", "no/b.jlog"), "No such file", 1),
            (("read", "b.jlog", "-S", "x"), "no such subscriber", 1),
            (("subscribers", "b.jlog", "add", "x" * 127), "Invalid argument", 1)):
        text = run(flow, *words, wanted=status)
        expect(said in text, f"{words}: {text}")
    del os.environ["FLYWHEEL_LOGS"]
    meta = flow.path / "logs" / "b.jlog" / "metastore"
    meta.write_bytes(struct.pack("=4I", 0, 4096, 1, 0x15106A01))
    for command in ("read", "tail", "stats", "repair", "write"):
        expect("compressed" in run(flow, command, meta.parent, wanted=1), command)
