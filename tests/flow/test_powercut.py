"""Power cuts at random moments under load, on real file systems: nothing that was answered 250 is lost."""

from books import BACKENDS, Books, new_seed
from disks import LoopDisk, VolatileDisk

# Loop devices belong to the whole machine.
alone = True


def cuts(flow, disk, cycles):
    books = Books(flow, new_seed(), disk)
    books.run(cycles, books.cut_at_random)


def test_loses_nothing_to_power_cuts_on_ext4(flow):
    cuts(flow, LoopDisk(flow, "ext4"), 3)


def test_loses_nothing_to_power_cuts_on_xfs(flow):
    cuts(flow, LoopDisk(flow, "xfs"), 3)


def test_loses_nothing_with_what_a_disk_had_in_its_cache_on_ext4(flow):
    cuts(flow, VolatileDisk(flow, "ext4"), 3)


test_loses_nothing_with_what_a_disk_had_in_its_cache_on_ext4.backends = BACKENDS


def test_loses_nothing_with_what_a_disk_had_in_its_cache_on_xfs(flow):
    cuts(flow, VolatileDisk(flow, "xfs"), 3)
