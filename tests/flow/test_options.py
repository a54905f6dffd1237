"""Every configuration option changes what the program does: a table that says which test shows it,
and the tests that no other file has."""

import errno
import os
import pathlib
import select
import socket
import stat
import subprocess
import time

import test_bindings
import test_bouncelog
import test_bounces
import test_delays
import test_dkim
import test_dns
import test_events
import test_extensions
import test_http
import test_journal_output
import test_peers
import test_policy
import test_policy_libraries
import test_rotation
import test_sites
import test_smtp_input
import test_sts
import test_tls
import test_watchdog
from flow import Daemon, Sink, can_connect, expect, expect_equal, free_port, wait_until
from peer import Peer

HELLO = "Subject: hello\r\n\r\nhello\r\n"
KIB, MIB = 1 << 10, 1 << 20
BODY = "Subject: body\r\n\r\n" + ("x" * 70 + "\r\n") * 140


# ---- the program ----


def message_number(text):
    """A message id as the number that its 26 letters and digits stand for."""
    number = 0
    for letter in text.upper():
        number = number << 5 | "0123456789ABCDEFGHJKMNPQRSTVWXYZ".index(letter)
    return number


def test_puts_the_node_into_message_ids(flow):
    daemon = Daemon(flow, text="node_id = 4711\nsuspend_delivery = true")
    ids = [daemon.connect().mail("to@node.test", body=HELLO)[1].split()[-1] for _ in range(3)]
    expect_equal([message_number(i) >> 64 & 0xffff for i in ids], [4711] * 3, "node in message ids")
    seconds = (message_number(ids[0]) >> 80) / 1000
    expect(abs(seconds - time.time()) < 300, f"an id's time is {seconds}")
    expect_equal(sorted(ids), ids, "ids in order of time")


def kinds_of_files(daemon):
    links = []
    for path in pathlib.Path(f"/proc/{daemon.process.pid}/fd").iterdir():
        try:
            links.append(os.readlink(path))
        except FileNotFoundError:
            pass  # closed in between
    return {k: sum(1 for link in links if k in link) for k in ("[io_uring]", "[eventpoll]")}


def test_waits_with_the_multiplexor_that_it_was_told(flow):
    for backend in ("epoll", "poll", "uring"):
        daemon = Daemon(flow, backend=backend, name=backend)
        daemon.console("version")
        kinds = kinds_of_files(daemon)
        # One is libunbound's, of its own thread.
        epolls = kinds["[eventpoll]"] - 1
        wanted = {"epoll": epolls > 0, "poll": epolls == 0, "uring": kinds["[io_uring]"] > 2 and epolls == 0}
        expect(wanted[backend], f"{backend}: {kinds}")
        expect_equal(daemon.connect().say("NOOP")[0], 250, "reply")


def test_keeps_bodies_within_the_memory_budget(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text='''memory_budget = "1M"
domain "w.test" { suspend_delivery = true }''')
    client = daemon.connect()
    for _ in range(300):
        expect_equal(client.mail("to@w.test", body=BODY)[0], 250, "reply")
    resident = daemon.console("memory")["resident_body_bytes"]
    expect(MIB // 4 < resident < MIB + 64 * KIB, f"{resident} bytes of bodies are in memory")
    daemon.console("resume", "domain", "w.test")
    peer.wait(300)
    expect(all(m.data.endswith(BODY.encode()) for m in peer.mails), "a body came back changed")
    daemon.wait_for_rest()
    expect(daemon.counter("scheduler.bodies_loaded") > 100, "bodies were not read back")


def test_puts_off_mail_above_the_reception_budget(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text='reception_budget = "200K"', schedulers=1)
    piece = "x" * 70 + "\r\n"
    large = [daemon.connect() for _ in range(2)]
    for client in large:
        test_smtp_input.envelope(client)
        client.say("DATA", 354)
        client.send("Subject: large\r\n\r\n" + piece * (150 * KIB // len(piece)))
    wait_until(lambda: daemon.console("memory")["receiving_bytes"] > 200 * KIB, "more than the budget")
    late = daemon.connect()
    late.say("EHLO client.test", 250)
    code, text = late.say("MAIL FROM:<from@sender.test>")
    expect(code == 452 and "4.3.2" in text, f"reply above the budget: {code} {text}")
    expect_equal(daemon.console("memory")["reception_budget_bytes"], 200 * KIB, "budget in the console")
    # What is under way may end; on a machine so slow that it seems to stall, it may give way.
    codes = [client.say(".")[0] for client in large]
    gave_way = daemon.counter("scheduler.smtp_crowded_out")
    expect_equal((codes.count(250), codes.count(452)), (2 - gave_way, gave_way), "replies to what was under way")
    expect_equal(late.mail("to@good.test", body=HELLO, ehlo=False)[0], 250, "reply within the budget")
    peer.wait(3 - gave_way)


def test_asks_for_so_many_files(flow):
    daemon = Daemon(flow, text="server_max_file_descriptors = 1000\nserver_max_outbound_connections = 50",
                    start=False)
    daemon.start(prefix=["prlimit", "--nofile=256:4096"])
    limits = pathlib.Path(f"/proc/{daemon.process.pid}/limits").read_text()
    soft = [line.split()[3] for line in limits.splitlines() if line.startswith("Max open files")]
    expect_equal(soft, ["1000"], "soft limit of open files")


def test_stops_after_the_stop_timeout_at_the_latest(flow):
    """A peer and a client that never end are left, and what was under way is kept."""
    sink = Sink(flow, "--fault", "dot:silence")
    daemon = Daemon(flow, sink_port=sink.port, text='stop_timeout = "9s"')
    daemon.connect().mail("to@stuck.test", body=HELLO)
    client = daemon.connect()
    test_smtp_input.envelope(client)
    client.say("DATA", 354)
    wait_until(lambda: daemon.console("domain", "stuck.test")["queue"]["on_connections"] == 1, "the attempt")
    status, seconds = daemon.terminate()
    expect_equal(status, 0, "exit status")
    # The default is less.
    expect(seconds >= 9, f"it took {seconds:.1f} s")
    daemon.start()
    wait_until(lambda: daemon.queued() == 1, "the message after the stop")


def test_loses_nothing_with_small_rings(flow):
    sink = Sink(flow)
    daemon = Daemon(flow, sink_port=sink.port, schedulers=4, text="ring_slots = 64",
                    extra_agents="agent spool { count = 2 }")
    flow.load(daemon, "--messages", 10000, "--domains", 400, "--recipients", 3, "--sessions", 200, "--size", 1024,
              "--retry")
    wait_until(lambda: daemon.count("D") >= 30000, "all deliveries")
    stats = sink.stop()
    expect_equal((stats["deliveries"], stats["duplicates"], stats["bad"]), (30000, 0, 0), "deliveries")
    daemon.wait_for_rest()


test_loses_nothing_with_small_rings.short = True


def test_counts_stalls_above_the_threshold(flow):
    for threshold, some in (("1us", True), ("50s", False)):
        peer = Peer(flow)
        daemon = Daemon(flow, sink_port=peer.port, text=f'stall_threshold = "{threshold}"', name=threshold)
        daemon.connect().mail("to@stall.test", body=HELLO)
        peer.wait(1)
        stalls = sum(agent["stalls"] for agent in daemon.console("threads")["agents"])
        expect((stalls > 0) == some, f"{stalls} stalls above {threshold}")


# ---- the spool ----


def spool_files(daemon):
    return [p for p in pathlib.Path(daemon.spool).rglob("*") if p.is_file() and p.name != "lock"]


def test_makes_segments_as_configured(flow):
    """Files have the size of a segment; of those that are all dead, so many are kept for reuse."""
    for size, spares in ((1, 5), (2, 1)):
        peer = Peer(flow)
        daemon = Daemon(flow, sink_port=peer.port, name=size, text=f'''
spool {{ segment_size = "{size}M" spare_segments = {spares} }}
max_message_size = "400K"
domain "segment.test" {{ suspend_delivery = true }}''')
        client = daemon.connect()
        for _ in range(100):
            client.mail("to@segment.test", body=BODY * 10)
        expect({p.stat().st_size for p in spool_files(daemon)} == {size * MIB}, "files of another size")
        full = len(spool_files(daemon))
        expect(full >= 10 // size, f"{full} files of {size} MiB for 10 MiB of mail")
        daemon.console("resume", "domain", "segment.test")
        peer.wait(100)
        wait_until(lambda: daemon.counter("spool.segments_spare") == spares, f"{spares} spare segments")
        wait_until(lambda: len(spool_files(daemon)) == spares + 1, f"{spares} spare files and the active one")


def test_keeps_logs_and_spool_where_it_was_told(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, spool=flow.path / "here" / "spool", log=flow.path / "there" / "log",
                    start=False)
    (flow.path / "here").mkdir()
    (flow.path / "there").mkdir()
    daemon.start()
    daemon.connect().mail("to@where.test", body=HELLO)
    daemon.wait_lines("D", 1)
    expect((flow.path / "there" / "log" / "mainlog").exists() and spool_files(daemon), "no files")


def test_takes_no_mail_below_min_free(flow):
    daemon = Daemon(flow, text='spool { min_free = "60000G" }')
    client = daemon.connect()

    def refused():
        client.say("EHLO client.test", 250)
        return client.say("MAIL FROM:<from@sender.test>") == (452, "4.3.1 Insufficient system storage")
    wait_until(refused, "452 at MAIL")


def test_compacts_segments_that_are_mostly_dead(flow):
    """One message in twenty stays: with compaction their segments are given up."""
    files = {}
    for percent in (0, 60):
        peer = Peer(flow)
        daemon = Daemon(flow, sink_port=peer.port, name=percent, text=f'''
spool {{ segment_size = "1M" compact_below = {percent} spare_segments = 0 }}
max_message_size = "300K"
domain "stays.test" {{ suspend_delivery = true }}''')
        client = daemon.connect()
        for i in range(600):
            client.mail("to@stays.test" if i % 20 == 0 else "to@goes.test", body=BODY)
        peer.wait(570)
        wait_until(lambda: daemon.queued() == 30, "30 messages that stay")
        if percent:
            wait_until(lambda: daemon.counter("spool.compactions") > 2, "compactions")
        files[percent] = daemon.counter("spool.compactions")
        daemon.kill()
        daemon.start()
        wait_until(lambda: daemon.queued() == 30, "30 messages after a kill")
        daemon.console("resume", "domain", "stays.test")
        peer.wait(600)
        expect(all(m.data.endswith(BODY.encode()) for m in peer.mails), "a body changed")
    expect(files[0] == 0 and files[60] > 2, f"compactions: {files}")


def durability(flow, text, listener, name):
    daemon = Daemon(flow, text=text + "\nsuspend_delivery = true", listener=listener, name=name)
    client = daemon.connect()
    ids = [client.mail("to@durable.test", body=HELLO)[1].split()[-1] for _ in range(50)]
    return daemon, daemon.console("message", ids[0])


def test_syncs_before_it_answers(flow):
    daemon, shown = durability(flow, 'spool { durability = "synced" }', "", "synced")
    expect_equal((shown["durability"], shown["in_spool"]), ("synced", True), "durability")
    expect(daemon.counter("spool.syncs") >= 50, "fewer syncs than replies one after the other")
    daemon.kill()
    daemon.start()
    wait_until(lambda: daemon.queued() == 50, "50 messages after a kill")


test_syncs_before_it_answers.short = True
test_syncs_before_it_answers.backends = ["uring", "epoll", "poll"]


def test_cached_mail_survives_a_kill_without_a_sync(flow):
    for name, text, listener in (("spool", 'spool { durability = "cached" }', ""),
                                 ("listener", "", 'durability = "cached"')):
        daemon, shown = durability(flow, text, listener, name)
        expect_equal((shown["durability"], shown["in_spool"]), ("cached", True), f"durability by {name}")
        syncs = daemon.counter("spool.syncs")
        expect(syncs < 10, f"{syncs} syncs")
        daemon.kill()
        daemon.start()
        wait_until(lambda: daemon.queued() == 50, "50 messages after a kill")


test_cached_mail_survives_a_kill_without_a_sync.short = True


def test_mail_in_memory_survives_a_stop_but_no_kill(flow):
    daemon, shown = durability(flow, 'spool { durability = "memory" }', "", "memory")
    expect_equal((shown["durability"], shown["in_spool"]), ("memory", False), "durability")
    expect_equal(daemon.terminate()[0], 0, "exit status")
    daemon.start()
    wait_until(lambda: daemon.queued() == 50, "50 messages after a stop")
    client = daemon.connect()
    for _ in range(7):
        client.mail("to@durable.test", body=HELLO)
    wait_until(lambda: daemon.queued() == 57, "57 messages")
    daemon.kill()
    daemon.start()
    wait_until(lambda: daemon.queued() == 50, "50 messages after a kill: those of before the stop")


test_mail_in_memory_survives_a_stop_but_no_kill.short = True


def test_mail_in_memory_is_spooled_when_it_has_to_wait(flow):
    peer = Peer(flow, mail="450 4.2.0 later")
    daemon = Daemon(flow, sink_port=peer.port, text='spool { durability = "memory" }\nretry_interval = "1h"')
    ids = [daemon.connect().mail("to@waits.test", body=HELLO)[1].split()[-1] for _ in range(5)]
    wait_until(lambda: daemon.console("domain", "waits.test")["queue"]["delayed"] == 5, "five delayed messages")
    wait_until(lambda: daemon.console("message", ids[0])["in_spool"], "a message in the spool")
    daemon.kill()
    daemon.start()
    wait_until(lambda: daemon.queued() == 5, "five messages after a kill")


# ---- the log ----


def test_says_that_it_is_alive(flow):
    daemon = Daemon(flow, text='log { heartbeat = "100ms" }')
    began = time.monotonic()
    daemon.wait_lines("M1", 5)
    expect(time.monotonic() - began < 20, "heartbeats are slow")


# ---- threads ----


def thread(daemon, name):
    return {t["thread"]: t for t in daemon.console("threads")["threads"]}[name]


def cycles(daemon, name, seconds=0.5):
    """Duty cycles and parks of a thread a second."""
    began, first = time.monotonic(), thread(daemon, name)
    time.sleep(seconds)
    last, took = thread(daemon, name), time.monotonic() - began
    return (last["cycles"] - first["cycles"]) / took


def usable_cores():
    return sorted(os.sched_getaffinity(0))


def test_pins_threads_to_their_cores(flow):
    first, last = usable_cores()[0], usable_cores()[-1]
    daemon = Daemon(flow, extra_agents=f'''agent scheduler {{ cores = ( {first} {last} ) }}
agent spool {{ core = {last} }}
group service {{ core = {first} }}
agent wheel {{ group = "service" }}
agent log {{ core = -1 }}
agent pool {{ count = 2 cores = ( {last} {first} ) }}''')
    found = {name: thread(daemon, name) for name in ("scheduler.0", "scheduler.1", "spool.0", "service", "log",
                                                     "worker.0", "worker.1")}
    expect_equal({n: (t["core"], t["pinned"]) for n, t in found.items()},
                 {"scheduler.0": (first, True), "scheduler.1": (last, True), "spool.0": (last, True),
                  "service": (first, True), "log": (None, False), "worker.0": (last, True),
                  "worker.1": (first, True)}, "cores")
    tasks = pathlib.Path(f"/proc/{daemon.process.pid}/task")
    masks = [line.split()[1] for t in tasks.iterdir() for line in (t / "status").read_text().splitlines()
             if line.startswith("Cpus_allowed_list")]
    expect(masks.count(str(first)) >= 2 or first == last, f"the kernel says {masks}")


def test_runs_so_many_agents_in_their_groups(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, schedulers=3, extra_agents='''group all { }
agent spool { count = 2 group = "all" } agent wheel { group = "all" } agent log { group = "all" }
agent pool { count = 3 group = "all" } agent master { group = "all" }''')
    agents = {a["agent"]: a["thread"] for a in daemon.console("threads")["agents"]}
    expect_equal({a for a, t in agents.items() if t == "all"},
                 {"spool.0", "spool.1", "wheel", "log", "pool", "master"}, "agents of the group")
    expect_equal(sorted(a for a in agents if a.startswith(("scheduler", "worker"))),
                 ["scheduler.0", "scheduler.1", "scheduler.2", "worker.0", "worker.1", "worker.2"], "agents")
    for i in range(20):
        daemon.connect().mail(f"to@d{i}.test", body=HELLO)
    peer.wait(20)
    daemon.wait_for_rest()
    expect_equal(daemon.terminate()[0], 0, "exit status")


def test_all_agents_share_one_thread(flow):
    kinds = ("master", "scheduler", "spool", "wheel", "log", "pool")
    sink = Sink(flow)
    daemon = Daemon(flow, sink_port=sink.port, schedulers=2, extra_agents='group one { }\n'
                    + "\n".join(f'agent {k} {{ group = "one" }}' for k in kinds))
    flow.load(daemon, "--messages", 1000, "--domains", 20)
    wait_until(lambda: daemon.count("D") >= 1000, "all deliveries")
    expect_equal(sink.stop()["distinct"], 1000, "messages")
    expect_equal(daemon.terminate()[0], 0, "exit status")


test_all_agents_share_one_thread.short = True
test_all_agents_share_one_thread.backends = ["uring", "epoll", "poll"]


def test_idles_with_each_strategy(flow):
    """Mail flows with each, and each shows itself in the console."""
    sink = Sink(flow)
    for i, idle in enumerate(("busy-spin", "yield", "backoff", "sleep", "noop", "park")):
        daemon = Daemon(flow, sink_port=sink.port, schedulers=1, name=idle, extra_agents=f'''
group g {{ idle = "{idle}" }}
agent scheduler {{ idle = "{idle}" }}
agent wheel {{ group = "g" }} agent log {{ group = "g" }}''')
        flow.load(daemon, "--messages", 100, "--domains", 10, "--id-prefix", f"i{i}")
        wait_until(lambda: daemon.count("D") >= 100, f"all deliveries with {idle}")
        expect_equal({thread(daemon, name)["idle"] for name in ("scheduler.0", "g")}, {idle}, "strategy")
        expect_equal(daemon.terminate()[0], 0, f"exit status with {idle}")
    expect_equal(sink.stop()["distinct"], 600, "messages")


def test_idle_strategies_take_their_numbers(flow):
    daemon = Daemon(flow, schedulers=1, extra_agents='''
agent spool { spin = 0 }
agent wheel { group = "slow" }
agent log { idle = "sleep" sleep = "2ms" }
agent pool { idle = "sleep" sleep = "200ms" }
group slow { idle = "backoff" max_spins = 0 max_yields = 0 min_park = "100ms" max_park = "100ms" }''')
    expect(cycles(daemon, "slow") < 60, "min_park does not slow it down")
    # At most 500 a second; fewer where others want the processor, too.
    expect(20 < cycles(daemon, "log") < 600, "sleep = 2ms does not show")
    expect(cycles(daemon, "pool") < 12, "sleep = 200ms does not show")
    daemon.terminate()
    quick = Daemon(flow, schedulers=1, name="quick", extra_agents='''
agent wheel { idle = "backoff" max_spins = 0 max_yields = 0 min_park = "1us" max_park = "1ms" }
agent log { idle = "backoff" max_spins = 1000000 max_yields = 1000000 min_park = "20s" max_park = "20s" }
agent spool { idle = "backoff" max_spins = 1000000 max_yields = 0 min_park = "1s" max_park = "1s" }''')
    expect(40 < cycles(quick, "wheel") < 1500, "max_park = 1ms does not show")
    # Spinning and yielding a million times each comes before the first sleep.
    wait_until(lambda: thread(quick, "log")["cycles"] > 1500000, "spins and yields")
    wait_until(lambda: thread(quick, "spool.0")["cycles"] > 900000, "spins")


test_idle_strategies_take_their_numbers.alone = True


def test_park_spins_as_long_as_it_was_told(flow):
    ratio = {}
    for spin in ("0", "20ms"):
        agents = f'''agent scheduler {{ spin = "{spin}" }} agent spool {{ spin = 0 }} agent master {{ spin = 0 }}'''
        daemon = Daemon(flow, schedulers=1, extra_agents=agents, name=spin)
        for _ in range(20):
            daemon.console("version")
        t = thread(daemon, "scheduler.0")
        ratio[spin] = t["cycles_idle"] / max(t["parks"], 1)
        daemon.terminate()
    expect(ratio["20ms"] > 10 * ratio["0"], f"idle cycles for each park: {ratio}")


test_park_spins_as_long_as_it_was_told.alone = True


def test_coalesces_what_comes_after_work(flow):
    """The log's thread sleeps after each line that it wrote, and finds more of them afterwards."""
    work = {}
    for coalesce in ("0", "900ms"):
        daemon = Daemon(flow, schedulers=1, extra_agents=f'agent log {{ coalesce = "{coalesce}" }}', name=coalesce)
        client = daemon.connect()
        for i in range(30):
            client.mail(f"to@d{i}.invalid", body=HELLO)
        daemon.wait_lines("R", 30)
        agents = daemon.console("threads")["agents"]
        work[coalesce] = next(a for a in agents if a["agent"] == "log")["cycles_work"]
        daemon.terminate()
    expect(work["0"] > 2 * work["900ms"], f"cycles of the log agent with work: {work}")


test_coalesces_what_comes_after_work.alone = True


# ---- sockets ----


def test_opens_only_sockets_that_are_enabled(flow):
    port, other = free_port(), free_port()
    Daemon(flow, listener=f'listen "127.0.0.1:{port}" {{ enable = false }}\nlisten "127.0.0.1:{other}" {{ }}')
    expect_equal((can_connect(port), can_connect(other)), (False, True), "open sockets")


def test_lets_so_many_connections_wait(flow):
    daemon = Daemon(flow, listener="listen_backlog = 4", schedulers=1)
    daemon.freeze()
    sockets = []
    for _ in range(20):
        s = socket.socket()
        s.setblocking(False)
        expect_equal(s.connect_ex(("127.0.0.1", daemon.port)), errno.EINPROGRESS, "connect")
        sockets.append(s)
    connected = wait_until(lambda: select.select([], sockets, [], 0)[1], "connections")
    expect(1 <= len(connected) <= 6, f"{len(connected)} of 20 connections wait")
    daemon.thaw()
    for s in connected:
        s.settimeout(60)
        expect(s.recv(100).startswith(b"220"), "no greeting")
    for s in sockets:
        s.close()


def test_gives_the_console_socket_its_mode(flow):
    daemon = Daemon(flow, text="file_mode = 0600")
    expect_equal(oct(stat.S_IMODE(os.stat(daemon.control).st_mode)), "0o600", "mode")


def test_serves_smtp_on_ipv6_and_unix_sockets(flow):
    peer = Peer(flow)
    port, path = free_port(), flow.path / "smtp"
    Daemon(flow, sink_port=peer.port, listener=f'listen "[::1]:{port}" {{ }}\nlisten "{path}" {{ }}\n'
           'relay_hosts = ( "::1" "127.0.0.0/8" "::/128" )')
    for family, address in ((socket.AF_INET6, ("::1", port)), (socket.AF_UNIX, str(path))):
        try:
            s = socket.socket(family)
            s.settimeout(60)
            s.connect(address)
        except OSError as error:
            expect(family == socket.AF_INET6 and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT), str(error))
            continue
        expect(s.recv(1000).startswith(b"220"), f"no greeting on {address}")
        s.close()


# ---- delivery ----


def test_waits_at_each_stage_for_its_own_timeout(flow):
    """A peer falls silent; only the option of that stage is short."""
    stages = {"connect": ("connect_timeout", "banner"), "ehlo": ("ehlo_timeout", "EHLO response"),
              "mail": ("mailfrom_timeout", "MAIL FROM response"), "rcpt": ("rcptto_timeout", "RCPT TO response"),
              "data": ("body_timeout", "DATA response"), "dot": ("body_timeout", "response to the body")}
    text = 'retry_interval = "1h"\n'
    for stage, (option, _) in stages.items():
        sink = Sink(flow, "--fault", f"{stage}:silence")
        text += f'domain "{stage}.test" {{ gateway = "127.0.0.1:{sink.port}" {option} = "400ms" }}\n'
    daemon = Daemon(flow, text=text)
    for stage in stages:
        daemon.connect().mail(f"to@{stage}.test", body=HELLO)
    lines = {line[5]: line[13] for line in daemon.wait_lines("T", len(stages))}
    for stage, (option, waited) in stages.items():
        expect(f"timed out: no {waited}" in lines[f"{stage}.test"], f"{option}: {lines[f'{stage}.test']}")


def test_waits_for_the_answer_to_rset(flow):
    sink = Sink(flow, "--fault", "rset:silence", "--reject-rcpt", "bad@*")
    daemon = Daemon(flow, sink_port=sink.port, text='rset_timeout = "300ms" max_outbound_connections = 1')
    began = time.monotonic()
    daemon.connect().mail("bad@rset.test", sender="", body=HELLO)
    daemon.wait_lines("P", 1)
    daemon.connect().mail("good@rset.test", body=HELLO)
    daemon.wait_lines("D", 1)
    expect(time.monotonic() - began < 20, "RSET was waited for as long as by default")


def test_delivers_to_the_port_that_it_was_told(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, text=f'gateway = "127.0.0.1"\nremote_smtp_port = {peer.port}')
    daemon.connect().mail("to@port.test", body=HELLO)
    peer.wait(1)
    daemon = Daemon(flow, text=f"remote_smtp_port = {peer.port}", name="literal")
    daemon.connect().mail("to@[127.0.0.1]", body=HELLO)
    peer.wait(2)


def test_says_the_name_that_it_was_told(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text='domain "two.test" { ehlo_hostname = "second.test" }')
    daemon.connect().mail(["to@one.test", "to@two.test"], body=HELLO)
    peer.wait(2)
    expect_equal({line for _, line in peer.said("EHLO")}, {"EHLO flow.test", "EHLO second.test"}, "EHLO")


def test_the_closest_scope_decides(flow):
    peers = {name: Peer(flow) for name in ("global", "domain", "binding", "both")}
    ports = {name: peer.port for name, peer in peers.items()}
    daemon = Daemon(flow, text=f'''gateway = "127.0.0.1:{ports["global"]}"
domain "d.test" {{ gateway = "127.0.0.1:{ports["domain"]}" }}
domain "b.test" {{ gateway = "127.0.0.1:{ports["domain"]}" }}
binding "default" {{ domain "b.test" {{ gateway = "127.0.0.1:{ports["both"]}" }} }}''')
    daemon.connect().mail(["to@any.test", "to@d.test", "to@b.test"], body=HELLO)
    for name, recipient in (("global", "to@any.test"), ("domain", "to@d.test"), ("both", "to@b.test")):
        expect_equal(peers[name].wait(1)[0].recipients, [recipient], f"recipients of {name}")


# ---- the table ----

I, P, B, G, K, N, S, T, E, H = (test_smtp_input, test_peers, test_bounces, test_bindings, test_dkim, test_dns, test_sts,
                                test_tls, test_extensions, test_http)

# Name and scopes of an option, as in `flywheeld --reference`, and what shows that it works.
SHOWN_BY = {
    ("source", "script"): test_policy.test_several_scripts_run_in_the_order_of_the_file,
    ("max_instructions", "scriptlet"): test_policy.test_the_budget_is_as_configured,
    ("max_memory", "scriptlet"): test_policy.test_others_go_on_whatever_a_script_does,
    ("uri", "datasource"): test_policy_libraries.test_sqlite_is_asked,
    ("max_rows", "datasource"): test_policy_libraries.test_answers_are_bounded,
    ("max_connections", "datasource"): test_policy_libraries.test_connections_are_bounded_and_used_again,
    ("monitors", "inbound_audit"): test_policy.test_what_clients_do_is_counted_in_windows,
    ("query_timeout", "datasource"): test_policy_libraries.test_a_query_ends_in_its_time,
    ("mx_rollup", "domain"): test_sites.test_a_domain_may_be_alone,
    ("mx_suffix", "provider"): test_sites.test_a_providers_sets_are_one_site,
    ("hostname", "global"): I.test_greets_and_offers_what_it_has,
    ("node_id", "global"): test_puts_the_node_into_message_ids,
    ("multiplexor", "global"): test_waits_with_the_multiplexor_that_it_was_told,
    ("memory_budget", "global"): test_keeps_bodies_within_the_memory_budget,
    ("reception_budget", "global"): test_puts_off_mail_above_the_reception_budget,
    ("server_max_outbound_connections", "global"): P.test_never_opens_more_connections_than_allowed_in_all,
    ("server_max_file_descriptors", "global"): test_asks_for_so_many_files,
    ("watchdog_stall", "global"): test_watchdog.test_nobody_watches_when_told_so,
    ("watchdog_abort", "global"): test_watchdog.test_a_stall_aborts_the_program_and_nothing_is_lost,
    ("stop_timeout", "global"): test_stops_after_the_stop_timeout_at_the_latest,
    ("ring_slots", "global"): test_loses_nothing_with_small_rings,
    ("stall_threshold", "global"): test_counts_stalls_above_the_threshold,
    ("bounce_rules", "global"): test_bouncelog.test_goes_by_the_rules_that_it_was_given,
    ("path", "spool"): test_keeps_logs_and_spool_where_it_was_told,
    ("segment_size", "spool"): test_makes_segments_as_configured,
    ("min_free", "spool"): test_takes_no_mail_below_min_free,
    ("compact_below", "spool"): test_compacts_segments_that_are_mostly_dead,
    ("spare_segments", "spool"): test_makes_segments_as_configured,
    ("durability", "spool"): test_mail_in_memory_survives_a_stop_but_no_kill,
    ("path", "log"): test_keeps_logs_and_spool_where_it_was_told,
    ("heartbeat", "log"): test_says_that_it_is_alive,
    ("rotate", "log"): test_rotation.test_rotates_hourly,
    ("rotate_size", "log"): test_rotation.test_rotates_by_size_and_loses_no_line,
    ("keep", "log"): test_rotation.test_keeps_so_many_rotated_files,
    ("compress", "log"): test_rotation.test_compresses_rotated_files,
    ("log_transient_failures", "log"): test_bouncelog.test_leaves_deferred_recipients_out_when_told_to,
    ("main", "log"): test_events.test_a_log_may_go_to_two_places_or_nowhere,
    ("bounce", "log"): test_events.test_a_log_may_go_to_two_places_or_nowhere,
    ("reject", "log"): test_events.test_a_log_may_go_to_two_places_or_nowhere,
    ("fbl", "log"): test_events.test_a_log_may_go_to_two_places_or_nowhere,
    ("panic", "log"): test_events.test_a_log_may_go_to_two_places_or_nowhere,
    ("acct", "log"): test_events.test_a_log_may_go_to_two_places_or_nowhere,
    ("context_headers", "log"): test_events.test_captured_headers_survive_a_restart,
    ("mainlog", "custom_logger"): test_events.test_custom_loggers_know_every_macro,
    ("reception_logfile", "custom_logger"): test_events.test_each_stage_has_a_file_of_its_own,
    ("reception_format", "custom_logger"): test_events.test_each_stage_has_a_file_of_its_own,
    ("delivery_logfile", "custom_logger"): test_events.test_each_stage_has_a_file_of_its_own,
    ("delivery_format", "custom_logger"): test_events.test_each_stage_has_a_file_of_its_own,
    ("transient_failure_logfile", "custom_logger"): test_events.test_each_stage_has_a_file_of_its_own,
    ("transient_failure_format", "custom_logger"): test_events.test_each_stage_has_a_file_of_its_own,
    ("permanent_failure_logfile", "custom_logger"): test_events.test_each_stage_has_a_file_of_its_own,
    ("permanent_failure_format", "custom_logger"): test_events.test_each_stage_has_a_file_of_its_own,
    ("rejection_logfile", "custom_logger"): test_events.test_each_stage_has_a_file_of_its_own,
    ("rejection_format", "custom_logger"): test_events.test_each_stage_has_a_file_of_its_own,
    ("sanitize", "custom_logger"): test_events.test_custom_loggers_know_every_macro,
    ("segment_size", "journal"): test_journal_output.test_begins_a_segment_at_the_size_that_it_was_told,
    ("size_limit", "journal"): test_journal_output.test_drops_who_never_reads_at_the_size_limit,
    ("sync", "journal"): test_journal_output.test_syncs_a_journal_as_it_was_told,
    ("subscribers", "journal"): test_journal_output.test_a_subscriber_follows_while_mail_flows,
    ("mode", "resolver"): N.test_asks_the_root_that_it_was_told,
    ("forwarders", "resolver"): N.test_digs_and_remembers_until_told_to_forget,
    ("resolv_conf", "resolver"): N.test_knows_names_from_files,
    ("hosts_file", "resolver"): N.test_knows_names_from_files,
    ("trust_anchor", "resolver"): N.test_validates_with_the_anchors_that_it_was_given,
    ("trust_anchor_file", "resolver"): N.test_validates_with_the_anchors_that_it_was_given,
    ("root_hints", "resolver"): N.test_asks_the_root_that_it_was_told,
    ("local_zone_file", "resolver"): N.test_knows_names_from_files,
    ("timeout", "resolver"): N.test_a_silent_name_server_holds_up_no_other_domain,
    ("max_pending", "resolver"): N.test_asks_so_many_questions_at_a_time_and_each_once,
    ("cache_entries", "resolver"): N.test_keeps_so_many_answers,
    ("min_ttl", "resolver"): N.test_keeps_answers_as_long_as_it_was_told,
    ("max_ttl", "resolver"): N.test_keeps_answers_as_long_as_it_was_told,
    ("count", "agent"): test_runs_so_many_agents_in_their_groups,
    ("cores", "agent"): test_pins_threads_to_their_cores,
    ("core", "agent"): test_pins_threads_to_their_cores,
    ("group", "agent"): test_runs_so_many_agents_in_their_groups,
    ("backlog", "agent"): N.test_refuses_tasks_above_the_backlog,
    ("core", "group"): test_pins_threads_to_their_cores,
    ("idle", "agent"): test_idles_with_each_strategy,
    ("spin", "agent"): test_park_spins_as_long_as_it_was_told,
    ("coalesce", "agent"): test_coalesces_what_comes_after_work,
    ("max_spins", "agent"): test_idle_strategies_take_their_numbers,
    ("max_yields", "agent"): test_idle_strategies_take_their_numbers,
    ("min_park", "agent"): test_idle_strategies_take_their_numbers,
    ("max_park", "agent"): test_idle_strategies_take_their_numbers,
    ("sleep", "agent"): test_idle_strategies_take_their_numbers,
    ("enable", "listen"): test_opens_only_sockets_that_are_enabled,
    ("listen_backlog", "listen"): test_lets_so_many_connections_wait,
    ("listener_sessions", "listen"): I.test_limits_connections,
    ("service_sessions", "esmtp_listener"): I.test_limits_connections,
    ("max_connections_per_peer", "listen"): I.test_limits_connections,
    ("file_mode", "listen"): test_gives_the_console_socket_its_mode,
    ("token", "http_listener"): H.test_answers_only_those_who_know_the_token,
    ("token_file", "http_listener"): H.test_answers_only_those_who_know_the_token,
    ("idle_time", "http_listener"): H.test_dismisses_clients_that_wait,
    ("max_header_size", "http_listener"): H.test_refuses_what_is_no_question,
    ("max_requests", "http_listener"): H.test_serves_so_many_at_a_time,
    ("max_event_clients", "http_listener"): H.test_serves_so_many_at_a_time,
    ("metrics_top_domains", "global"): H.test_has_series_for_so_many_domains_and_one_for_the_rest,
    ("metrics_interval", "global"): H.test_walks_over_domains_no_oftener_than_told,
    ("server", "graphite"): H.test_sends_metrics_to_graphite,
    ("interval", "graphite"): H.test_sends_metrics_to_graphite,
    ("prefix", "graphite"): H.test_sends_metrics_to_graphite,
    ("hostname", "peer"): I.test_gives_each_peer_its_own_options,
    ("banner", "peer"): I.test_greets_and_offers_what_it_has,
    ("relay_hosts", "peer"): I.test_relays_only_for_whom_and_where_it_may,
    ("relay_domains", "peer"): I.test_relays_only_for_whom_and_where_it_may,
    ("bounce_domains", "peer"): test_bouncelog.test_takes_bounces_for_its_bounce_domains_only,
    ("max_message_size", "peer"): I.test_refuses_messages_that_are_too_large,
    ("max_line_length", "peer"): I.test_refuses_lines_that_are_too_long,
    ("max_recipients_per_message", "peer"): I.test_refuses_more_recipients_than_allowed_and_takes_the_others,
    ("max_idle_commands", "peer"): I.test_dismisses_those_who_talk_and_send_nothing,
    ("max_receptions_per_connection", "peer"): I.test_ends_a_connection_after_so_many_messages,
    ("idle_time", "peer"): I.test_dismisses_silent_clients,
    ("session_timeout", "peer"): I.test_dismisses_those_who_send_a_byte_now_and_then,
    ("bare_lf", "peer"): I.test_refuses_bare_line_ends_or_converts_them,
    ("auth_file", "peer"): E.test_lets_users_relay,
    ("allow_plain_auth", "peer"): E.test_takes_passwords_only_where_nobody_listens,
    ("require_authentication", "peer"): E.test_takes_mail_only_from_users_if_told_to,
    ("max_auth_failures", "peer"): E.test_limits_failures_of_one_address,
    ("xclient_hosts", "peer"): E.test_believes_proxies_by_xclient,
    ("proxy_protocol", "listen"): E.test_believes_proxies_by_their_header,
    ("binding", "peer"): G.test_header_listener_and_user_choose_in_this_order,
    ("binding_header", "peer"): G.test_lets_only_trusted_clients_choose,
    ("durability", "peer"): test_cached_mail_survives_a_kill_without_a_sync,
    ("dkim_sign", "peer"): K.test_does_not_sign_where_told_not_to,
    ("selector", "dkim"): K.test_signs_as_configured,
    ("key", "dkim"): K.test_signatures_are_good_for_others,
    ("canonicalization", "dkim"): K.test_signatures_are_good_for_others,
    ("headers", "dkim"): K.test_signs_as_configured,
    ("oversign", "dkim"): K.test_signs_as_configured,
    ("expiration", "dkim"): K.test_signs_as_configured,
    ("tls_certificate", "peer"): T.test_offers_starttls_where_it_has_a_certificate,
    ("tls_key", "peer"): T.test_offers_starttls_where_it_has_a_certificate,
    ("tls_ciphers", "peer"): T.test_agrees_on_what_it_was_told,
    ("tls_protocols", "peer"): T.test_agrees_on_what_it_was_told,
    ("tls_client_ca", "peer"): T.test_knows_clients_by_their_certificates,
    ("tls_verify_mode", "peer"): T.test_knows_clients_by_their_certificates,
    ("tls_verified_peer_can_relay", "peer"): T.test_knows_clients_by_their_certificates,
    ("use_ssl", "peer"): T.test_speaks_tls_from_the_first_byte_where_told,
    ("starttls_injection_policy", "peer"): T.test_obeys_nothing_that_came_with_starttls,
    ("certificate", "tls_certificate"): T.test_shows_the_certificate_that_is_asked_for,
    ("key", "tls_certificate"): T.test_shows_the_certificate_that_is_asked_for,
    ("tls", "domain"): T.test_sends_in_plain_text_when_told,
    ("tls_ca", "domain"): T.test_verifies_the_next_hop,
    ("tls_failure_retry", "domain"): T.test_tries_tls_again_after_a_while,
    ("mta_sts", "domain"): S.test_obeys_policies,
    ("port", "mta_sts"): S.test_obeys_policies,
    ("ca", "mta_sts"): S.test_obeys_policies,
    ("timeout", "mta_sts"): S.test_waits_for_a_policy_no_longer_than_told,
    ("max_fetches", "mta_sts"): S.test_a_slow_policy_host_holds_up_no_other_domain,
    ("cache_entries", "mta_sts"): S.test_keeps_so_many_policies,
    ("weight", "binding"): G.test_gives_each_binding_of_a_group_its_share,
    ("bind_address", "binding"): G.test_sends_from_the_address_and_by_the_name_of_the_binding,
    ("gateway", "domain"): P.test_prefers_the_first_gateway_that_works,
    ("remote_smtp_port", "domain"): test_delivers_to_the_port_that_it_was_told,
    ("address_family", "domain"): N.test_uses_the_address_families_that_it_was_told,
    ("max_outbound_connections", "domain"): P.test_never_opens_more_connections_than_allowed,
    ("max_deliveries_per_connection", "domain"): P.test_closes_a_connection_after_so_many_messages,
    ("max_recipients_per_batch", "domain"): P.test_sends_at_most_so_many_recipients_at_once,
    ("retry_interval", "domain"): P.test_retries_ever_more_slowly_and_says_when,
    ("max_retry_interval", "domain"): P.test_retries_ever_more_slowly_and_says_when,
    ("message_expiration", "domain"): P.test_gives_up_mail_that_is_too_old,
    ("connect_timeout", "domain"): test_waits_at_each_stage_for_its_own_timeout,
    ("ehlo_timeout", "domain"): test_waits_at_each_stage_for_its_own_timeout,
    ("mailfrom_timeout", "domain"): test_waits_at_each_stage_for_its_own_timeout,
    ("rcptto_timeout", "domain"): test_waits_at_each_stage_for_its_own_timeout,
    ("body_timeout", "domain"): test_waits_at_each_stage_for_its_own_timeout,
    ("rset_timeout", "domain"): test_waits_for_the_answer_to_rset,
    ("idle_timeout", "domain"): P.test_closes_idle_connections,
    ("host_failure_retry", "domain"): P.test_leaves_a_failed_host_alone,
    ("suspend_delivery", "domain"): P.test_does_not_send_what_is_suspended,
    ("generate_bounces", "domain"): B.test_tells_no_one_when_told_not_to,
    ("generate_delay_dsn", "domain"): test_delays.test_tells_of_delays_who_asked_for_nothing_if_told_to,
    ("delay_dsn_retry_interval", "domain"): test_delays.test_tells_of_delays_when_it_is_time,
    ("use_chunking", "domain"): E.test_sends_chunks_where_they_are_offered,
    ("downgrade_8bit", "domain"): E.test_sends_or_bounces_8_bits,
    ("ehlo_hostname", "domain"): test_says_the_name_that_it_was_told,
    ("mailerdaemon", "domain"): B.test_names_who_writes_as_configured,
    ("outbound_throttle_messages", "domain"): P.test_keeps_to_the_message_throttle,
    ("outbound_throttle_connections", "domain"): P.test_keeps_to_the_connection_throttle,
}


def test_every_option_has_a_test(flow):
    """An option that is new, or gone, must change the table; a test's name that is gone cannot load."""
    done = subprocess.run([flow.program("flywheeld"), "--reference"], capture_output=True, text=True, timeout=60)
    expect_equal(done.returncode, 0, "exit status of --reference")
    rows = [[column.strip() for column in line.split("\t")] for line in done.stdout.splitlines()]
    expect(len(rows) > 60, f"{len(rows)} options")
    shown, missing = set(), []
    for row in rows:
        name, scopes = row[0], [scope.split()[0] for scope in row[4].split(", ")]
        keys = {(name, scope) for scope in scopes} & set(SHOWN_BY)
        shown |= keys
        if not keys:
            missing.append((name, row[4]))
    expect(not missing, f"no test shows {missing}")
    expect(not set(SHOWN_BY) - shown, f"no such options: {set(SHOWN_BY) - shown}")


test_every_option_has_a_test.short = True
