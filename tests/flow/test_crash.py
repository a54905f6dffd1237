"""kill -9 at random moments under load: nothing that was answered 250 is lost."""

from books import BACKENDS, Books, new_seed


def kills(flow, cycles):
    books = Books(flow, new_seed())
    books.run(cycles, books.kill_at_random)


def test_loses_nothing_over_kills_at_random_moments(flow):
    kills(flow, 10)


def test_loses_nothing_over_kills_on_each_back_end(flow):
    kills(flow, 3)


test_loses_nothing_over_kills_on_each_back_end.backends = BACKENDS
test_loses_nothing_over_kills_on_each_back_end.short = True
