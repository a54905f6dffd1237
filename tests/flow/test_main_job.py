"""The main job: accept, make durable, queue by domain, deliver, account for it."""

import time

from flow import Daemon, Sink, expect, expect_equal, wait_until

BACKENDS = ["uring", "epoll", "poll"]


def relay(flow, messages, domains=100, schedulers=2, sessions=20):
    sink = Sink(flow)
    daemon = Daemon(flow, sink_port=sink.port, schedulers=schedulers)
    flow.load(daemon, "--messages", messages, "--domains", domains, "--size", 10240, "--sessions", sessions)
    wait_until(lambda: daemon.count("D") >= messages, "all deliveries in the log")
    stats = sink.stop()
    expect_equal(stats["distinct"], messages, "messages that arrived")
    expect_equal(stats["duplicates"], 0, "messages that arrived twice")
    expect_equal(stats["bad"], 0, "messages that arrived changed")
    expect_equal(daemon.count("R"), messages, "R lines")
    expect_equal(daemon.count("D"), messages, "D lines")
    return daemon


def check_owners(daemon, schedulers):
    """Every scheduler served connections and delivered; nothing is left queued."""
    counters = daemon.counters()
    for i in range(schedulers):
        expect(counters[f"scheduler.{i}.inbound.connections"] > 0, f"scheduler {i} served nobody")
        expect(counters[f"scheduler.{i}.delivered"] > 0, f"scheduler {i} delivered nothing")
    daemon.wait_for_rest()
    lost = [k for k in counters if k.endswith("park_timeout_with_work") and counters[k] != 0]
    expect_equal(lost, [], "lost wake-ups")


def test_relays_every_message_once_and_whole(flow):
    daemon = relay(flow, 100000)
    check_owners(daemon, 2)
    status, seconds = daemon.terminate()
    expect_equal(status, 0, "exit status")
    expect(seconds < 10, f"SIGTERM took {seconds:.1f} s")


def test_relays_on_each_back_end_with_one_scheduler(flow):
    check_owners(relay(flow, 2000, schedulers=1), 1)


def test_relays_on_each_back_end_with_two_schedulers(flow):
    check_owners(relay(flow, 2000, schedulers=2), 2)


def test_relays_on_each_back_end_with_four_schedulers(flow):
    check_owners(relay(flow, 2000, schedulers=4), 4)


for function in (test_relays_on_each_back_end_with_one_scheduler,
                 test_relays_on_each_back_end_with_two_schedulers,
                 test_relays_on_each_back_end_with_four_schedulers):
    function.backends = BACKENDS
test_relays_on_each_back_end_with_one_scheduler.short = True
test_relays_on_each_back_end_with_two_schedulers.short = True
test_relays_on_each_back_end_with_four_schedulers.short = True


def accept_then_kill_then_deliver(flow, messages):
    """The next hop is down: all is accepted. Killed, started again, next hop up: all is delivered."""
    sink = Sink(flow)
    port = sink.port
    sink.stop()
    daemon = Daemon(flow, sink_port=port, text='retry_interval = "2s"\nhost_failure_retry = "1s"')
    flow.load(daemon, "--messages", messages, "--domains", 100, "--size", 10240)
    wait_until(lambda: daemon.queued() == messages, "all to be queued while the next hop is down")
    daemon.kill()
    sink = Sink(flow, port=port)
    daemon.start()
    wait_until(lambda: sink.count("distinct") >= messages, "all messages at the sink")
    daemon.wait_for_rest()
    stats = sink.stop()
    expect_equal(stats["distinct"], messages, "messages that arrived")
    expect_equal(stats["duplicates"], 0, "messages that arrived twice")
    expect_equal(stats["bad"], 0, "messages that arrived changed")
    return daemon


def test_keeps_what_it_accepted_over_a_kill(flow):
    accept_then_kill_then_deliver(flow, 100000)


def test_keeps_what_it_accepted_over_a_kill_in_short(flow):
    accept_then_kill_then_deliver(flow, 1000)


test_keeps_what_it_accepted_over_a_kill_in_short.short = True
test_keeps_what_it_accepted_over_a_kill_in_short.backends = BACKENDS


def test_delivers_twice_only_what_was_in_flight_at_a_kill(flow):
    messages = 20000
    sink = Sink(flow)
    daemon = Daemon(flow, sink_port=sink.port)
    load = flow.start("fwload", "--to", f"127.0.0.1:{daemon.port}", "--messages", messages,
                      "--domains", 100, "--retry", "--connect-retry", 60)
    for quota in (1000, 5000, 9000):
        wait_until(lambda: sink.count("distinct") >= quota, f"{quota} messages at the sink")
        daemon.kill()
        daemon.start()
    load.wait(300)
    expect_equal(load.returncode, 0, "exit status of the load")
    wait_until(lambda: sink.count("distinct") >= messages, "all messages at the sink")
    daemon.wait_for_rest()
    stats = sink.stop()
    expect_equal(stats["bad"], 0, "messages that arrived changed")
    # At each kill: what each connection had in flight, and what it had just done.
    bound = 3 * (2 * stats["connections_peak"] + 20)
    expect(stats["duplicates"] <= bound, f"{stats['duplicates']} duplicates, at most {bound} were in flight")


def test_stays_small_with_a_large_queue(flow):
    messages = 100000
    sink = Sink(flow)
    port = sink.port
    sink.stop()
    daemon = Daemon(flow, sink_port=port, text='memory_budget = "64M"')
    flow.load(daemon, "--messages", messages, "--domains", 100, "--size", 10240)
    wait_until(lambda: daemon.queued() == messages, "all to be queued")
    resident = daemon.resident_bytes()
    expect(resident < 200 << 20, f"{resident >> 20} MiB are resident")


def test_stops_within_ten_seconds_under_load(flow):
    sink = Sink(flow)
    daemon = Daemon(flow, sink_port=sink.port)
    accepted = flow.path / "accepted"
    load = flow.start("fwload", "--to", f"127.0.0.1:{daemon.port}", "--messages", 1000000,
                      "--domains", 100, "--accepted-file", accepted)
    wait_until(lambda: sink.count("distinct") >= 2000, "some messages at the sink")
    status, seconds = daemon.terminate()
    expect_equal(status, 0, "exit status")
    expect(seconds < 10, f"it took {seconds:.1f} s")
    load.terminate()
    load.wait()
    daemon.start()
    daemon.wait_for_rest()
    wanted = len(set(accepted.read_text().split()))
    wait_until(lambda: sink.count("distinct") >= wanted, "what was accepted at the sink")
    expect_equal(sink.stop()["bad"], 0, "messages that arrived changed")


test_stops_within_ten_seconds_under_load.short = True


def idle_share(flow, idle):
    """CPU of an idle daemon as a share of one core, over some seconds."""
    kinds = ("scheduler", "spool", "wheel", "log", "pool")
    agents = "\n".join(f'agent {k} {{ idle = "{idle}" {"count = 2" if k == "scheduler" else ""} }}' for k in kinds)
    daemon = Daemon(flow, extra_agents=agents)
    wait_until(lambda: daemon.console("summary") is not None, "the console")
    time.sleep(1)
    before = daemon.cpu_seconds()
    time.sleep(10)
    return (daemon.cpu_seconds() - before) / 10


def test_costs_nothing_when_idle_with_park(flow):
    share = idle_share(flow, "park")
    expect(share < 0.01, f"{share:.2%} of a core")


def test_costs_nothing_when_idle_with_backoff(flow):
    share = idle_share(flow, "backoff")
    expect(share < 0.01, f"{share:.2%} of a core")


test_costs_nothing_when_idle_with_park.alone = True
test_costs_nothing_when_idle_with_backoff.alone = True
