"""Disks that fail, vanish, or are full, under load: nothing is answered 250 that is not safe, what was
answered before arrives, deliveries go on, and reception comes back when the disk does. A power cut
comes last, so that what counts is what is on the disk."""

import errno

from books import BACKENDS, RECIPIENTS, Books, new_seed
from disks import LoopDisk, VolatileDisk
from flow import expect, expect_equal, wait_until

# In every message's blocks, more than once, and in no block of the file system's own.
MAIL = "Fwload-"
SMALL_SEGMENTS = 'spool { segment_size = "2M" spare_segments = 0 }'
SCHEDULERS = 2
# Loop devices belong to the whole machine.
alone = True


def wait_counter(books, name, count):
    wait_until(lambda: books.daemon.counter(name) >= count, f"{name} to be {count}")


def wait_stores_fail(books):
    """A message of each scheduler was refused, so the answers from before are given."""
    def refused():
        counters = books.daemon.counters("scheduler.*rejected_busy")
        return all(counters[f"scheduler.{i}.rejected_busy"] > 0 for i in range(SCHEDULERS))
    wait_until(refused, "messages to be refused")


def expect_none_accepted(books, meanwhile):
    """By the daemon's count: the load may not have read its last answer yet."""
    before = books.daemon.counter("scheduler.received")
    rejected = books.daemon.counter("scheduler.rejected")
    meanwhile()
    wait_counter(books, "scheduler.rejected", rejected + 100)
    expect_equal(books.daemon.counter("scheduler.received") - before, 0, "accepted while nothing could be kept")


def wait_delivered(books):
    """All that was accepted until now."""
    books.read()
    wanted = set(books.accepted)

    def all_there():
        books.read()
        return all(books.arrived.get(name, 0) == RECIPIENTS for name in wanted)
    wait_until(all_there, f"{len(wanted)} messages at the sink")


def expect_452(books):
    client = books.daemon.connect()
    client.say("EHLO client.test", 250)
    code, text = client.say("MAIL FROM:<from@sender.test>")
    client.close()
    return code == 452 and "4.3.1" in text


# ---- writes and syncs that fail ----


def test_gives_up_a_segment_that_was_not_written(flow):
    """Some data does not reach the disk: the write or its sync fails, and the batch goes to another segment."""
    disk = VolatileDisk(flow, "ext4")
    with Books(flow, new_seed(), disk, text=SMALL_SEGMENTS) as books:
        for count in range(1, 6):
            books.wait_accepted(books.draws.randrange(1, 200))
            disk.say(f"fail write 1 {MAIL}")
            wait_counter(books, "spool.segments_abandoned", count)
        errors = books.daemon.counter("spool.write_errors") + books.daemon.counter("spool.sync_errors")
        expect(errors >= 5, "failed writes and syncs are not counted")
        expect("of segment" in str(books.daemon.console("errors")), "the console does not tell")
        books.cut_at_random()
        books.balance(books.settle())


def test_refuses_mail_while_nothing_can_be_written(flow):
    """Each write of mail fails: 4xx, deliveries go on. When writes succeed again, so does reception."""
    disk = VolatileDisk(flow, "ext4")
    with Books(flow, new_seed(), disk, text=SMALL_SEGMENTS) as books:
        books.wait_accepted(50)
        books.sink.freeze()
        books.wait_accepted(50)
        disk.say(f"fail write {1 << 30} {MAIL}")
        wait_stores_fail(books)

        def deliver():
            books.sink.thaw()
            wait_delivered(books)
        expect_none_accepted(books, deliver)
        expect(books.daemon.counter("spool.segments_abandoned") > 0, "no segment was abandoned")
        disk.say("fail write 0 -")
        books.wait_accepted(200)
        books.cut_at_random()
        books.balance(books.settle())


test_gives_up_a_segment_that_was_not_written.backends = BACKENDS
test_refuses_mail_while_nothing_can_be_written.backends = BACKENDS


def flushes_fail(flow, kind):
    """A disk that cannot empty its cache: the file system may end itself over that, or go on. Then the power
    goes."""
    disk = VolatileDisk(flow, kind)
    with Books(flow, new_seed(), disk) as books:
        for _ in range(2):
            books.wait_accepted(books.draws.randrange(1, 200))
            failures = disk.say("counts")["failures"]
            arrived = books.sink.count_now("recipients")
            disk.say("fail flush 2")
            wait_until(lambda: disk.say("counts")["failures"] > failures, "a flush to fail")
            wait_counter(books, "spool.sync_errors", 1)
            books.moment(50)
            books.sink.freeze()
            disk.cut_failed(books.draws.randrange(1 << 32))
            books.kill()
            books.sink.thaw()
            # What arrives while nobody can write that down comes again.
            books.backlog += books.quiet_sink() - arrived
            disk.restore()
            disk.say("fail flush 0")
            books.start()
        books.balance(books.settle())


def test_loses_nothing_when_flushes_fail_on_ext4(flow):
    flushes_fail(flow, "ext4")


def test_loses_nothing_when_flushes_fail_on_xfs(flow):
    flushes_fail(flow, "xfs")


def file_system_is_gone(flow, kind):
    """It ends itself when its disk is not there any more."""
    disk = VolatileDisk(flow, kind)
    with Books(flow, new_seed(), disk) as books:
        books.wait_accepted(200)
        # What waits now is delivered all the same, and as nobody can write that down, it comes again.
        books.backlog += RECIPIENTS * len(books.open)
        disk.cut(0)
        wait_stores_fail(books)
        expect_none_accepted(books, lambda: wait_delivered(books))
        books.kill()
        disk.restore()
        books.start()
        books.balance(books.settle())


def test_refuses_mail_when_ext4_is_gone(flow):
    file_system_is_gone(flow, "ext4")


def test_refuses_mail_when_xfs_is_gone(flow):
    file_system_is_gone(flow, "xfs")


# ---- full disks ----


class Ballast:
    """Takes a file system's space, or its inodes."""

    def __init__(self, disk):
        self.folder = disk.path / "ballast"
        self.folder.mkdir()

    def take_space(self):
        for size in (1 << 20, 4 << 10, 1):
            try:
                with open(self.folder / "space", "ab", buffering=0) as file:
                    while file.write(b"x" * size) == size:
                        pass
            except OSError as error:
                expect_equal(error.errno, errno.ENOSPC, "error")

    def take_inodes(self):
        count = 0
        try:
            while True:
                (self.folder / f"inode-{count}").touch()
                count += 1
        except OSError as error:
            expect_equal(error.errno, errno.ENOSPC, "error")

    def drop(self):
        for file in self.folder.iterdir():
            file.unlink()


def disk_is_full(flow, take, mkfs=()):
    disk = LoopDisk(flow, "ext4", size=64 << 20, mkfs=("-m", "0", *mkfs))
    with Books(flow, new_seed(), disk, text=SMALL_SEGMENTS) as books:
        ballast = Ballast(disk)
        books.wait_accepted(100)
        books.sink.freeze()
        take(ballast)
        # What room is left in segments is used.
        wait_until(lambda: expect_452(books), "452 at MAIL")
        expect("ENOSPC" in str(books.daemon.console("errors")), "the console does not tell")
        # Room again, and nothing else has changed.
        ballast.drop()
        books.wait_accepted(100)
        take(ballast)
        wait_until(lambda: expect_452(books), "452 at MAIL")
        books.sink.thaw()
        wait_delivered(books)
        ballast.drop()
        books.wait_accepted(100)
        books.cut_at_random()
        books.balance(books.settle())


def test_puts_off_mail_while_the_spool_has_no_space(flow):
    disk_is_full(flow, Ballast.take_space)


def test_puts_off_mail_while_the_spool_has_no_inodes(flow):
    disk_is_full(flow, Ballast.take_inodes, mkfs=("-N", "64"))


test_puts_off_mail_while_the_spool_has_no_space.backends = ["uring", "denied"]


def fill_log_disk(books, disk):
    """Mail goes on, and what is not written down is told."""
    ballast = Ballast(disk)
    books.wait_accepted(100)
    ballast.take_space()
    wait_counter(books, "log.write_errors", 1)
    books.wait_accepted(300)
    wait_delivered(books)
    expect("ENOSPC" in str(books.daemon.console("errors")), "the console does not tell")
    return ballast


def test_writes_down_all_that_happened_while_the_log_had_no_space(flow):
    disk = LoopDisk(flow, "ext4", size=16 << 20)
    with Books(flow, new_seed(), log_disk=disk) as books:
        ballast = fill_log_disk(books, disk)
        ballast.drop()
        books.balance(books.finish())


def test_loses_nothing_to_a_kill_while_the_log_had_no_space(flow):
    """Lines that were not written are gone, and the last one may be torn; the next life's log is whole."""
    disk = LoopDisk(flow, "ext4", size=16 << 20)
    with Books(flow, new_seed(), log_disk=disk) as books:
        for _ in range(3):
            ballast = fill_log_disk(books, disk)
            books.kill()
            ballast.drop()
            ballast.folder.rmdir()
            books.start()
        books.balance(books.settle())
