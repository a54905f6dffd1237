"""Rotation of log files: whatever happens meanwhile, each line is in one file, once and whole."""

import collections
import gzip
import os
import random
import re
import subprocess
import threading
import time

from flow import Daemon, Sink, expect, expect_equal, wait_until
from peer import Peer
from test_start import fill, mount

HELLO = "Subject: hello\r\n\r\nhello\r\n"
ROTATED = re.compile(r"(\d{6})-\d{8}T\d{6}(\.zst|\.gz)?$")


def rotated(daemon, file="mainlog"):
    """Files put aside, oldest first: number, then path. Where both are there, as after a kill, the original."""
    files = {}
    for path in sorted(daemon.log.glob(f"{file}.*")):
        match = ROTATED.search(path.name)
        if match:
            files.setdefault(int(match[1]), path)
    return files


def read(path):
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-qdc", path], capture_output=True, check=True).stdout
    return path.read_bytes()


def all_text(daemon, file="mainlog"):
    """What is in all files, while nobody compresses."""
    return b"".join([read(path) for path in rotated(daemon, file).values()] + [read(daemon.log / file)])


def all_lines(daemon, file="mainlog"):
    return all_text(daemon, file).decode().splitlines()


def recipients(lines, kind):
    """How often each recipient, or each message, has a line of this type."""
    rows = [line.split("@") for line in lines]
    return collections.Counter(row[1] + "@" + row[5] for row in rows if len(row) > 4 and row[4] == kind)


def whole(line):
    """Has it the fields of its type? A line that is torn, or two in one, has not."""
    row = line.split("@")
    return len(row) == {"R": 14, "D": 12, "M1": 5}.get(row[4] if len(row) > 4 else "", 0)


def expect_every_line_once(daemon, messages):
    """Of `messages` mails with one recipient that were all delivered."""
    text = all_text(daemon)
    expect(text.endswith(b"\n"), "the log ends within a line")
    lines = text.decode().splitlines()
    bad = [line for line in lines if not whole(line)]
    expect_equal(bad[:3], [], f"{len(bad)} lines that are not whole")
    for kind in "RD":
        counts = recipients(lines, kind)
        expect_equal(len(counts), messages, f"messages with {kind} lines")
        expect_equal([name for name, count in counts.items() if count != 1][:3], [], f"{kind} lines not there once")


def stop(daemon):
    daemon.wait_for_rest()
    status, _ = daemon.terminate()
    expect_equal(status, 0, "exit status")


def test_rotates_by_size_and_loses_no_line(flow):
    """Under load, with compression."""
    daemon = Daemon(flow, sink_port=Sink(flow).port,
                    text='log { rotate_size = "32K" keep = 0 compress = "zstd" }')
    flow.load(daemon, "--sessions", "10", "--messages", "3000", "--size", "400")
    daemon.wait_for_rest()
    wait_until(lambda: sum(daemon.counters(f"log.mainlog.{name}")[f"log.mainlog.{name}"] * sign for name, sign in
                           (("rotations", 1), ("compressed_files", -1))) == 0, "all to be compressed")
    counters = daemon.counters("log.mainlog.*")
    stop(daemon)
    files = rotated(daemon)
    expect(len(files) > 10, f"{len(files)} rotated files")
    expect_equal(list(files), list(range(1, len(files) + 1)), "numbers of files")
    expect_equal((counters["log.mainlog.rotations"], counters["log.mainlog.rotation_errors"]), (len(files), 0),
                 "rotations and errors")
    expect_equal({path.suffix for path in files.values()}, {".zst"}, "suffixes")
    sizes = [len(read(path)) for path in files.values()]
    expect_equal(sum(sizes), counters["log.mainlog.compressed_bytes"], "bytes that were compressed")
    expect(max(sizes) <= 32 << 10, f"a file of {max(sizes)} bytes")
    # What did not fit was one line.
    expect(min(sizes) > (32 << 10) - 400, f"a file of {min(sizes)} bytes")
    expect_every_line_once(daemon, 3000)


def test_rotates_when_told_and_loses_no_line(flow):
    """`flywheel log rotate`, again and again under load."""
    daemon = Daemon(flow, sink_port=Sink(flow).port, text='log { keep = 0 compress = "gzip" }')
    answers = []
    done = threading.Event()

    def rotate():
        while not done.is_set():
            answers.append({os.path.basename(row["log"]): row for row in daemon.console("log", "rotate")["logs"]})
    thread = threading.Thread(target=rotate)
    thread.start()
    try:
        for _ in range(4):
            flow.load(daemon, "--sessions", "10", "--messages", "500", "--size", "400")
    finally:
        done.set()
        thread.join()
    stop(daemon)
    named = [a["mainlog"]["rotated_to"] for a in answers if a["mainlog"]["result"] == "rotated"]
    files = rotated(daemon)
    expect(len(named) >= 4, f"{len(named)} rotations")
    expect_equal([str(path).removesuffix(".gz") for path in files.values()], named, "files, and those that were named")
    expect_equal({a["fbllog"]["result"] for a in answers}, {"is empty"}, "results of a log with nothing in it")
    expect_every_line_once(daemon, 2000)


def expect_kept(lines, seen, when):
    """Lines that were there are there, in order, before what has come since."""
    kept = next((i for i, pair in enumerate(zip(seen, lines)) if pair[0] != pair[1]), min(len(seen), len(lines)))
    expect(kept == len(seen), f"{when}: of {len(seen)} lines {kept} are as they were; then {lines[kept:kept + 1]}, "
           f"which was {seen[kept:kept + 1]}")


def wait_for_rotation(daemon, suffix):
    """Looks, as often as it can, until a file is put aside, or is being compressed; or a second has gone."""
    end = time.monotonic() + 1
    before = set(os.listdir(daemon.log))
    while time.monotonic() < end and not any(
            name.endswith(suffix or name[-15:]) and name.startswith("mainlog.") and not name.endswith(".zst")
            for name in set(os.listdir(daemon.log)) - before):
        pass


def test_loses_no_line_to_kills_while_it_rotates(flow):
    """What was in the log before a kill is there afterwards, once, wherever rotation and compression were."""
    seed = int(os.environ.get("FLOW_SEED", random.randrange(1 << 32)))
    print(f"     seed {seed}")
    draws = random.Random(seed)
    daemon = Daemon(flow, sink_port=Sink(flow).port, text='log { rotate_size = "128K" keep = 0 compress = "zstd" }')
    seen = []
    moments = collections.Counter()
    for _ in range(20):
        load = flow.start("fwload", "--to", f"127.0.0.1:{daemon.port}", "--sessions", "10", "--messages", "100000",
                          "--size", "400")
        wait_until(lambda: daemon.counter("log.mainlog.rotations") > 0, "a rotation")
        if draws.random() < 0.5:
            time.sleep(draws.random() / 50)
        else:
            wait_for_rotation(daemon, draws.choice(["", ".tmp"]))
        daemon.kill()
        flow.stop(load)
        moments["while it compressed"] += any(daemon.log.glob("*.tmp"))
        moments["before it compressed"] += any(path.suffix != ".zst" for path in rotated(daemon).values())
        # The end of what was written last may be torn.
        lines = all_text(daemon).decode().split("\n")[:-1]
        expect_kept(lines, seen, f"after kill {sum(moments.values())}")
        seen = lines
        daemon.start()
    wait_until(lambda: all(path.suffix == ".zst" for path in rotated(daemon).values()), "all to be compressed")
    stop(daemon)
    expect_equal(list(daemon.log.glob("*.tmp")), [], "half compressed files")
    lines = all_lines(daemon)
    expect_kept(lines, seen, "at the end")
    torn = [line for line in lines if not whole(line)]
    expect(len(torn) <= 20, f"{len(torn)} lines that are not whole: {torn[:3]}")
    counts = recipients(lines, "R")
    expect_equal([name for name, count in counts.items() if count != 1][:3], [], "R lines not there once")
    print(f"     killed {dict(moments)}; {len(rotated(daemon))} files, {len(lines)} lines, {len(torn)} torn")


def test_keeps_originals_while_there_is_no_room_to_compress(flow):
    """Mail and its log go on, what cannot be compressed is whole, and is compressed by the next start."""
    small = mount(flow, "size=1m")
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, log=small / "log", text='log { compress = "gzip" keep = 0 }')
    daemon.connect().mail("to@log.test", body=HELLO)
    daemon.wait_lines("D", 1)
    # A page is left, for the log: so much does not fit into it, when it is compressed.
    (daemon.log / "mainlog.000000-20260101T000000").write_bytes(random.randbytes(400 << 10))
    fill(small / "ballast")
    result = {os.path.basename(row["log"]): row["result"] for row in daemon.console("log", "rotate")["logs"]}
    expect_equal((result["mainlog"], result["fbllog"]), ("rotated", "is empty"), "results")
    wait_until(lambda: daemon.counter("log.mainlog.archive_errors") == 1, "compression to fail")
    expect("cannot compress rotated files" in str(daemon.console("errors")), "the console does not tell")
    expect_equal(list(daemon.log.glob("*.tmp")), [], "half compressed files")
    os.unlink(small / "ballast")
    daemon.connect().mail("to@log.test", body=HELLO)
    daemon.wait_lines("D", 1)
    daemon.terminate()
    daemon.start()
    wait_until(lambda: [path.suffix for path in rotated(daemon).values()] == [".gz", ".gz"], "two compressed files")
    rotated(daemon)[0].unlink()
    stop(daemon)
    expect_every_line_once(daemon, 2)


# ---- options ----


def make_old(daemon, file="mainlog"):
    """A log that was written the day before yesterday."""
    daemon.log.mkdir(exist_ok=True)
    path = daemon.log / file
    path.write_text("an old line\n")
    day = time.time() - 2 * 86400
    os.utime(path, (day, day))


def rotates_by_time(flow, period):
    daemon = Daemon(flow, start=False, text=f'log {{ rotate = "{period}" }}')
    make_old(daemon)
    daemon.start()
    wait_until(lambda: rotated(daemon), "a rotation")
    expect_equal([path.read_text() for path in rotated(daemon).values()], ["an old line\n"], "rotated files")
    expect_equal(daemon.counter("log.mainlog.rotations"), 1, "rotations")


def test_rotates_hourly(flow):
    rotates_by_time(flow, "hourly")


def test_rotates_daily(flow):
    rotates_by_time(flow, "daily")


def test_leaves_rotation_to_others(flow):
    """By default: logrotate(8) and its like do it."""
    peer = Peer(flow)
    daemon = Daemon(flow, start=False, sink_port=peer.port)
    make_old(daemon)
    daemon.start()
    daemon.connect().mail("to@log.test", body=HELLO)
    daemon.wait_lines("D", 1)
    expect_equal(rotated(daemon), {}, "rotated files")
    expect((daemon.log / "mainlog").read_text().startswith("an old line\n"), "the old line is gone")


def make_rotated(daemon, count):
    daemon.log.mkdir(exist_ok=True)
    for number in range(1, count + 1):
        (daemon.log / f"mainlog.{number:06}-20260101T000000").write_text(f"{number}\n" * 1000)


def test_keeps_so_many_rotated_files(flow):
    """The newest. Those that it does not know as its own are left alone."""
    daemon = Daemon(flow, start=False, text="log { keep = 2 }")
    make_rotated(daemon, 5)
    (daemon.log / "mainlog.1").write_text("of logrotate\n")
    daemon.start()
    wait_until(lambda: len(rotated(daemon)) == 2, "two files")
    expect_equal(list(rotated(daemon)), [4, 5], "files")
    expect_equal((daemon.log / "mainlog.1").read_text(), "of logrotate\n", "somebody else's file")
    wait_until(lambda: daemon.counter("log.mainlog.removed_files") == 3, "three files to be counted")


def test_compresses_rotated_files(flow):
    """Those too that an earlier run left, which did not compress."""
    daemon = Daemon(flow, start=False)
    make_rotated(daemon, 2)
    daemon.start()
    expect_equal(daemon.console("log", "rotate")["logs"][0]["result"], "is empty", "result")
    expect_equal(daemon.counter("log.mainlog.compressed_files"), 0, "compressed files")
    daemon.terminate()
    for kind, suffix in (("gzip", ".gz"), ("zstd", ".zst")):
        daemon.config.write_text(re.sub(r"(?m)^log \{ compress.*\n", "", daemon.config.read_text()) +
                                 f'log {{ compress = "{kind}" }}\n')
        make_rotated(daemon, 3 if suffix == ".zst" else 2)
        for path in daemon.log.glob("*.gz"):
            path.unlink()
        daemon.start()
        wait_until(lambda: {p.suffix for p in rotated(daemon).values()} == {suffix}, f"{suffix} files")
        for number, path in rotated(daemon).items():
            expect_equal(read(path).decode(), f"{number}\n" * 1000, f"content of {path.name}")
        daemon.terminate()
