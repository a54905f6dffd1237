"""Next hops that fail in every way: what is tried again, what is given up, what keeps others from
being delayed, and which limits hold."""

import os
import threading
import time

from flow import PATIENCE, Daemon, Sink, expect, expect_equal, free_port, wait_until
from peer import Peer

BACKENDS = ["uring", "epoll", "poll"]
HELLO = "Subject: hello\r\n\r\nhello\r\n"
# Failures and retries follow each other quickly.
HASTE = '''retry_interval = "100ms" max_retry_interval = "400ms" host_failure_retry = "100ms"
'''
TIMEOUTS = '''connect_timeout = "1s" ehlo_timeout = "1s" mailfrom_timeout = "1s" rcptto_timeout = "1s"
body_timeout = "1s" rset_timeout = "1s"
'''

# A sink's fault, the log line that one message then gets, its stage, and what its text tells.
VERDICTS = [
    ("connect:drop", "T", 12, "closed by remote host"), ("connect:421", "T", 12, "421"),
    ("connect:silence", "T", 12, "timed out: no banner"), ("connect:5xx", "T", 12, "5"),
    ("banner:4xx", "T", 12, "4"), ("banner:5xx", "T", 12, "5"), ("banner:421", "T", 12, "421"),
    ("banner:drop", "T", 12, "closed by remote host"), ("banner:garbage", "T", 12, "reply is none"),
    ("banner:flood", "T", 12, "too long"), ("banner:silence", "T", 12, "timed out: no banner"),
    ("ehlo:4xx", "T", 10, "4"), ("ehlo:421", "T", 10, "421"), ("ehlo:drop", "T", 10, "closed by remote host"),
    ("ehlo:garbage", "T", 10, "reply is none"), ("ehlo:flood", "T", 10, "too long"),
    ("ehlo:silence", "T", 10, "timed out: no EHLO response"),
    ("mail:4xx:451", "T", 2, "451"), ("mail:5xx:553", "P", 2, "553"), ("mail:421", "T", 2, "421"),
    ("mail:drop", "T", 2, "closed by remote host"), ("mail:garbage", "T", 2, "reply is none"),
    ("mail:flood", "T", 2, "too long"), ("mail:silence", "T", 2, "timed out: no MAIL FROM response"),
    ("rcpt:4xx:452", "T", 4, "452"), ("rcpt:5xx:551", "P", 4, "551"), ("rcpt:421", "T", 4, "421"),
    ("rcpt:drop", "T", 4, "closed by remote host"), ("rcpt:garbage", "T", 4, "reply is none"),
    ("rcpt:flood", "T", 4, "too long"), ("rcpt:silence", "T", 4, "timed out: no RCPT TO response"),
    ("data:4xx:451", "T", 6, "451"), ("data:5xx:554", "P", 6, "554"), ("data:421", "T", 6, "421"),
    ("data:drop", "T", 6, "closed by remote host"), ("data:garbage", "T", 6, "reply is none"),
    ("data:flood", "T", 6, "too long"), ("data:silence", "T", 6, "timed out: no DATA response"),
    ("dot:4xx:452", "T", 9, "452"), ("dot:5xx:550", "P", 9, "550"), ("dot:421", "T", 9, "421"),
    ("dot:drop", "T", 9, "closed by remote host"), ("dot:garbage", "T", 9, "reply is none"),
    ("dot:flood", "T", 9, "too long"), ("dot:silence", "T", 9, "timed out: no response to the body"),
]


def domains_to_sinks(sinks):
    """A stanza for each: d0.example goes to the first sink."""
    return "".join(f'domain "d{i}.example" {{ gateway = "127.0.0.1:{s.port}" }}\n' for i, s in enumerate(sinks))


def test_logs_what_each_failure_was(flow):
    sinks = [Sink(flow, "--fault", fault) for fault, *_ in VERDICTS]
    daemon = Daemon(flow, text=TIMEOUTS + 'retry_interval = "1h"\ngenerate_bounces = false\n'
                    + domains_to_sinks(sinks))
    client = daemon.connect()
    for i in range(len(VERDICTS)):
        expect_equal(client.mail(f"to@d{i}.example", body=HELLO)[0], 250, "reply")
    wait_until(lambda: len(daemon.lines("T")) + len(daemon.lines("P")) >= len(VERDICTS), "all verdicts")
    lines = {line[5]: line for line in daemon.lines() if line[4] in "TP"}
    wrong = []
    for i, (fault, kind, stage, text) in enumerate(VERDICTS):
        line = lines[f"d{i}.example"]
        if line[4] != kind or line[9] != str(stage) or text not in line[13] or line[12] != "127.0.0.1":
            wrong.append(f"{fault}: {'@'.join(line)}, wanted {kind}, stage {stage}, {text!r}")
    expect(not wrong, "\n".join(wrong))
    expect_equal(len(daemon.lines("D")), 0, "deliveries")


test_logs_what_each_failure_was.short = True

# Whatever happens now and then, in the end each message has arrived once.
PASSING = [f"{stage}:{action}@{rate}"
           for stage in ("connect", "banner", "ehlo", "mail", "rcpt", "data", "dot")
           for action, rate in (("421", 0.3), ("drop", 0.3), ("silence", 0.1), ("garbage", 0.2), ("flood", 0.2),
                                ("4xx", 0.3), ("delay:50", 0.3))]
PASSING += ["body:drop@0.3", "body:421@0.3", "rset:drop@0.5", "rset:4xx@0.5", "quit:drop", "quit:silence"]


def check_passing(flow, faults, each):
    sinks = [Sink(flow, "--fault", fault, "--seed", i) for i, fault in enumerate(faults)]
    daemon = Daemon(flow, text=HASTE + TIMEOUTS + domains_to_sinks(sinks))
    flow.load(daemon, "--messages", each * len(sinks), "--domains", len(sinks), "--size", 4096)
    wait_until(lambda: daemon.count("D") >= each * len(sinks), "all deliveries in the log")
    wrong = []
    for fault, sink in zip(faults, sinks):
        stats = sink.stop()
        found = {k: stats.get(k, 0) for k in ("distinct", "duplicates", "bad", "protocol_errors")}
        if found != {"distinct": each, "duplicates": 0, "bad": 0, "protocol_errors": 0}:
            wrong.append(f"{fault}: {found}, wanted {each} distinct")
    expect(not wrong, "\n".join(wrong))
    daemon.wait_for_rest()
    expect_equal(daemon.count("P"), 0, "P lines")


def test_delivers_everything_once_through_passing_faults(flow):
    check_passing(flow, PASSING, 12)


def test_delivers_everything_once_through_some_passing_faults(flow):
    check_passing(flow, ["mail:drop@0.3", "dot:421@0.3", "banner:4xx@0.3", "rcpt:garbage@0.3", "data:silence@0.1"], 10)


test_delivers_everything_once_through_some_passing_faults.backends = BACKENDS
test_delivers_everything_once_through_some_passing_faults.short = True


def test_loses_nothing_through_faults_and_kills(flow):
    """Next hops that fail in many ways, and a program that is killed: what was accepted arrives."""
    faults = [f"{stage}:{action}@0.03" for stage in ("banner", "mail", "rcpt", "data", "dot")
              for action in ("421", "drop", "4xx", "garbage")] + ["body:drop@0.03"]
    record, accepted = flow.path / "record", flow.path / "accepted"
    sink = Sink(flow, "--record", record, "--ids", *[word for f in faults for word in ("--fault", f)])
    daemon = Daemon(flow, sink_port=sink.port, schedulers=2, text=HASTE + TIMEOUTS + "max_recipients_per_batch = 2")
    load = flow.start("fwload", "--to", f"127.0.0.1:{daemon.port}", "--messages", 6000, "--domains", 40,
                      "--size", 4096, "--recipients", 3, "--retry", "--connect-retry", 60, "--accepted-file", accepted)
    for quota in (1000, 2500, 4000):
        wait_until(lambda: sink.count("distinct") >= quota, f"{quota} messages at the sink")
        daemon.kill()
        daemon.start()
    load.wait(300)
    expect_equal(load.returncode, 0, "exit status of the load")
    daemon.wait_for_rest()
    expect_equal(daemon.count("P"), 0, "P lines")
    stats = sink.stop()
    expect_equal((stats["distinct"], stats["deliveries"], stats["bad"], stats["protocol_errors"]),
                 (6000, 18000, 0, 0), "messages, deliveries, changed ones, breaches of the protocol")
    missing = set(accepted.read_text().split()) - set(record.read_text().split())
    expect_equal(missing, set(), "accepted and never arrived")


def test_tries_a_closed_port_again_until_it_opens(flow):
    port = free_port()
    daemon = Daemon(flow, text=HASTE, sink_port=port)
    client = daemon.connect()
    for _ in range(10):
        client.mail("to@down.test", body=HELLO)
    line = daemon.wait_lines("T", 1)[0]
    expect(line[9] == "0" and "cannot connect" in line[13] and "refused" in line[13], f"the log has {line}")
    peer = Peer(flow, port=port)
    peer.wait(10)
    daemon.wait_for_rest()
    expect_equal(len(daemon.wait_lines("D", 10)), 10, "D lines")


test_tries_a_closed_port_again_until_it_opens.backends = BACKENDS


def test_talks_to_old_servers(flow):
    for option in ("--no-ehlo", "--no-pipelining"):
        sink = Sink(flow, option)
        daemon = Daemon(flow, sink_port=sink.port, name=option)
        flow.load(daemon, "--messages", 200, "--recipients", 3, "--same-domain", "--domains", 5)
        wait_until(lambda: daemon.count("D") >= 600, "all deliveries")
        stats = sink.stop()
        expect_equal((stats["distinct"], stats["duplicates"], stats["bad"], stats["protocol_errors"]),
                     (200, 0, 0, 0), f"messages, duplicates, changed ones and breaches, {option}")


test_talks_to_old_servers.short = True


def test_keeps_to_what_the_peer_can_take(flow):
    peer = Peer(flow, offers=("SIZE 2000", "PIPELINING"))
    daemon = Daemon(flow, sink_port=peer.port, text="generate_bounces = false")
    client = daemon.connect()
    client.mail("small@peer.test", body=HELLO)
    client.mail("large@peer.test", body="Subject: x\r\n\r\n" + "x" * 70 + "\r\n" * 2000)
    line = daemon.wait_lines("P", 1)[0]
    expect("5.3.4" in line[13], f"the log has {line}")
    expect_equal(len(peer.wait(1)), 1, "messages at the peer")
    expect(all("BODY" not in text for _, text in peer.said("MAIL")), "an extension that was not offered")


def test_settles_each_recipient_by_its_own_reply(flow):
    sink = Sink(flow, "--reject-rcpt", "bad*", "--defer-rcpt", "busy*")
    daemon = Daemon(flow, sink_port=sink.port, text='retry_interval = "1h"\ngenerate_bounces = false')
    recipients = [f"{kind}{i}@mixed.test" for i in range(3) for kind in ("good", "bad", "busy")]
    client = daemon.connect()
    client.mail(recipients, body=HELLO)
    wait_until(lambda: [len(daemon.lines(k)) for k in "DTP"] == [3, 3, 3], "three lines of each kind")
    expect(all("550" in line[13] for line in daemon.lines("P")), "P lines without the peer's words")
    expect(all("450" in line[13] and line[9] == "4" for line in daemon.lines("T")), "T lines without its words")
    shown = daemon.console("message", daemon.lines("T")[0][1], "full")
    expect_equal(sorted(shown["deliveries"][0]["recipients"]), [f"busy{i}@mixed.test" for i in range(3)], "pending")
    # All refused: no DATA, and the connection goes on being of use.
    client.mail(["bad7@mixed.test", "bad8@mixed.test"], body=HELLO)
    client.mail("good9@mixed.test", body=HELLO)
    daemon.wait_lines("D", 4)
    expect_equal(sink.stop()["protocol_errors"], 0, "breaches of the protocol")


test_settles_each_recipient_by_its_own_reply.short = True


def test_sends_at_most_so_many_recipients_at_once(flow):
    sink = Sink(flow, "--reject-rcpt", "user3@*")
    daemon = Daemon(flow, sink_port=sink.port, text="max_recipients_per_batch = 2\ngenerate_bounces = false")
    daemon.connect().mail([f"user{i}@many.test" for i in range(7)], body=HELLO)
    wait_until(lambda: len(daemon.lines("D")) + len(daemon.lines("P")) == 7, "all recipients settled")
    expect_equal(len(daemon.lines("P")), 1, "P lines")
    expect_equal(sink.stop()["recipients_per_transaction_max"], 2, "recipients in one transaction")


def test_a_deferred_recipient_does_not_hold_up_the_others(flow):
    """In batches of one, each has its turn before all wait; an operator fails those whose turn has not come."""
    peer = Peer(flow, rcpt=lambda s: "450 4.2.0 busy" if s.rcpt.startswith("busy") else True)
    daemon = Daemon(flow, sink_port=peer.port, text='''max_recipients_per_batch = 1
retry_interval = "1h" max_retry_interval = "9h" generate_bounces = false''')
    recipients = [f"{kind}{i}@turns.test" for i in range(5) for kind in ("busy", "good")]
    message = daemon.connect().mail(recipients, body=HELLO)[1].split()[-1]
    peer.wait(5)
    for tries, hours in ((1, 1), (2, 2), (3, 4)):
        daemon.wait_lines("T", 5 * tries)
        wait_until(lambda: try_delayed(daemon, message), "the message in the delayed queue")
        due_s = daemon.console("domain", "turns.test")["queue"]["next_due_in_s"]
        expect((hours - 1) * 3600 < due_s <= hours * 3600, f"due in {due_s} s after {tries} tries")
        if tries < 3:
            daemon.console("message", "retry", message)
    shown = wait_until(lambda: try_delayed(daemon, message), "the message in the delayed queue")
    expect(shown["attempts"] <= 4 and shown["recipients_pending"] == 5, f"the console shows {shown}")
    expect("450 4.2.0 busy" in shown["last_reply"], f"the last reply is {shown['last_reply']}")
    expect_equal(sorted(m.recipients[0] for m in peer.mails), [f"good{i}@turns.test" for i in range(5)], "recipients")


def test_an_operator_fails_all_of_a_message_that_is_on_a_connection(flow):
    failed = threading.Event()
    peer = Peer(flow, mail=lambda s: failed.wait(PATIENCE) and "450 4.2.0 later")
    daemon = Daemon(flow, sink_port=peer.port, text="max_recipients_per_batch = 1\ngenerate_bounces = false")
    message = daemon.connect().mail([f"to{i}@doomed.test" for i in range(4)], body=HELLO)[1].split()[-1]
    wait_until(lambda: peer.said("MAIL"), "the attempt")
    expect_equal(daemon.console("message", "fail", message)["deliveries"], 1, "deliveries failed")
    failed.set()
    expect_equal(len(daemon.wait_lines("P", 4)), 4, "P lines")
    daemon.wait_for_rest()
    expect_equal(len(peer.said("MAIL")), 1, "tries")


# ---- one domain and another ----


def check_slow_domain(flow, fault, schedulers):
    good, bad = Sink(flow), Sink(flow, *fault) if fault else None
    port = bad.port if bad else free_port()
    daemon = Daemon(flow, schedulers=schedulers, text=f'''
domain "d0.example" {{ gateway = "127.0.0.1:{good.port}" }}
domain "d1.example" {{ gateway = "127.0.0.1:{port}" max_outbound_connections = 10 }}''')
    flow.load(daemon, "--messages", 2000, "--domains", 2, "--size", 2048)
    wait_until(lambda: good.count("distinct") == 1000, f"the good domain's messages beside {fault}")
    expect_equal(len([line for line in daemon.lines("D") if line[5] == "d1.example"]), 0, "the bad one's")

    def all_there():
        queue = daemon.console("domain", "d1.example")["queue"]
        return queue["active"] + queue["delayed"] + queue["on_connections"] == 1000
    wait_until(all_there, "all of the bad domain's messages in its queue")


def test_a_slow_domain_does_not_slow_another(flow):
    for i, fault in enumerate((("--fault", "dot:delay:400000"), ("--fault", "banner:silence"), None)):
        check_slow_domain(flow, fault, 1 + i % 2)
        for process in flow.programs:
            flow.stop(process)
        for name in ("spool", "log"):
            os.rename(flow.path / name, flow.path / f"{name}.{i}")


test_a_slow_domain_does_not_slow_another.short = True


def test_a_slow_reader_does_not_slow_another(flow):
    check_slow_domain(flow, ("--slow-read", "10"), 1)


# ---- connections ----


def test_reuses_connections(flow):
    sink = Sink(flow)
    daemon = Daemon(flow, sink_port=sink.port, text="max_outbound_connections = 1")
    flow.load(daemon, "--messages", 300)
    wait_until(lambda: daemon.count("D") >= 300, "all deliveries")
    reused = daemon.counter("scheduler.outbound.reused")
    stats = sink.stop()
    # One of the connections is the test's own, from when it waited for the sink.
    expect_equal((stats["connections"] - 1, stats["messages_per_connection_max"], reused), (1, 300, 299),
                 "connections, messages of one, reused")


def test_closes_a_connection_after_so_many_messages(flow):
    sink = Sink(flow)
    daemon = Daemon(flow, sink_port=sink.port, text="max_deliveries_per_connection = 7")
    flow.load(daemon, "--messages", 300, "--domains", 3)
    wait_until(lambda: daemon.count("D") >= 300, "all deliveries")
    stats = sink.stop()
    expect_equal((stats["distinct"], stats["messages_per_connection_max"]), (300, 7), "messages, of one connection")


def send_at_once(flow, daemon, messages, domains):
    """All is queued for delivery before any of it is delivered. Delivery is suspended, so far."""
    flow.load(daemon, "--messages", messages, "--domains", domains)
    wait_until(lambda: daemon.queued() == messages, "all to be queued")
    for i in range(domains):
        daemon.console("resume", "domain", f"d{i}.example")


def test_never_opens_more_connections_than_allowed(flow):
    sink = Sink(flow, "--fault", "dot:delay:12")
    daemon = Daemon(flow, sink_port=sink.port, schedulers=2, text='max_outbound_connections = 50 suspend_delivery = true\n'
                    + "".join(f'domain "d{i}.example" {{ max_outbound_connections = {i + 1} }}\n' for i in range(4)))
    send_at_once(flow, daemon, 800, 4)
    wait_until(lambda: daemon.count("D") >= 800, "all deliveries")
    stats = sink.stop()
    peaks = {name: d["connections_peak"] for name, d in stats["domains"].items()}
    expect_equal(peaks, {f"d{i}.example": i + 1 for i in range(4)}, "most connections at a time")


def test_never_opens_more_connections_than_allowed_in_all(flow):
    sink = Sink(flow, "--fault", "dot:delay:30")
    daemon = Daemon(flow, sink_port=sink.port, schedulers=4,
                    text="server_max_outbound_connections = 6 suspend_delivery = true")
    send_at_once(flow, daemon, 300, 20)
    wait_until(lambda: daemon.count("D") >= 300, "all deliveries")
    peak = sink.stop()["connections_peak"]
    expect(4 <= peak <= 6, f"{peak} connections at a time")


test_never_opens_more_connections_than_allowed_in_all.short = True


def test_delivers_everything_with_few_files(flow):
    """A domain for each file, and more: connections wait for files, mail does not get lost."""
    sink = Sink(flow)
    daemon = Daemon(flow, sink_port=sink.port, start=False,
                    text='''idle_timeout = "200ms"
server_max_file_descriptors = 256 server_max_outbound_connections = 256''')
    daemon.start(prefix=["setpriv", "--bounding-set=-sys_resource", "prlimit", "--nofile=200:200"])
    flow.load(daemon, "--messages", 1200, "--domains", 600, "--sessions", 10, "--size", 1024)
    wait_until(lambda: daemon.count("D") >= 1200, "all deliveries")
    stats = sink.stop()
    expect_equal((stats["distinct"], stats["duplicates"], stats["bad"]), (1200, 0, 0), "messages")


def test_closes_idle_connections(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text='idle_timeout = "500ms"')
    daemon.connect().mail("to@idle.test", body=HELLO)
    peer.wait(1)
    wait_until(lambda: peer.said("QUIT"), "QUIT")
    seconds = peer.said("QUIT")[0][0] - peer.mails[0].at
    expect(0.4 < seconds < 20, f"QUIT came after {seconds:.1f} s")
    wait_until(lambda: daemon.console("summary")["outbound_concurrency"] == 0, "no connection")


def test_does_not_mind_peers_that_close_idle_connections(flow):
    """They close when they like, even at the moment when the next message comes: no failure is logged."""
    def no_second(session):
        return None if session.transactions > 1 else True
    peer = Peer(flow, mail=no_second)
    daemon = Daemon(flow, sink_port=peer.port, text='idle_timeout = "60s" max_outbound_connections = 1')
    client = daemon.connect()
    for n in range(1, 20):
        client.mail("to@idle.test", body=HELLO)
        # The connection has come to rest: what is lost with the last answer on its way is a failure.
        daemon.wait_lines("D", n)
        if n % 3 == 0:
            for session in list(peer.open):
                session.socket.shutdown(2)
    daemon.wait_for_rest()
    expect_equal([len(daemon.lines(k)) for k in "DTP"], [19, 0, 0], "D, T and P lines")


test_does_not_mind_peers_that_close_idle_connections.backends = BACKENDS
test_does_not_mind_peers_that_close_idle_connections.short = True


# ---- throttles ----


def expect_in_turn(seconds, burst, rate):
    """A burst, then so many a second, counted from before the first: what is seen late proves nothing about those
    before it. The clocks differ by a little."""
    for i, after in enumerate(seconds):
        expect(after > (i + 1 - burst) / rate - 0.1, f"{i + 1} within {after:.2f} s")


def test_keeps_to_the_message_throttle(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, schedulers=2, text='''outbound_throttle_messages = "20/sec"
suspend_delivery = true
domain "free.test" { outbound_throttle_messages = none suspend_delivery = false }''')
    client = daemon.connect()
    for i in range(60):
        client.mail([f"to@d{i % 5}.test", "to@free.test"], body=HELLO)
    wait_until(lambda: len(peer.mails) == 60 and daemon.queued() == 60, "the free domain")
    began = time.monotonic()
    for i in range(5):
        daemon.console("resume", "domain", f"d{i}.test")
    peer.wait(120)
    times = sorted(m.at for m in peer.mails if m.recipients != ["to@free.test"])
    expect_in_turn([at - began for at in times], 20, 20)
    expect(daemon.counter("scheduler.outbound.throttled") > 0, "nothing was held")


def test_keeps_to_the_connection_throttle(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text='''outbound_throttle_connections = "5/sec"
max_deliveries_per_connection = 1''')
    client = daemon.connect()
    began = time.monotonic()
    for _ in range(15):
        client.mail("to@calm.test", body=HELLO)
    peer.wait(15)
    expect_equal(len(peer.opened), 15, "connections")
    expect_in_turn([at - began for at in peer.opened], 5, 5)
    shown = daemon.console("domain", "calm.test")
    limit = [row for row in shown["limits"] if row["limit"] == "outbound_throttle_connections"][0]
    expect(limit["value"] == "5/1" and limit["times_held"] > 0, f"the console shows {limit}")


# ---- gateways, retries ----


def test_prefers_the_first_gateway_that_works(flow):
    first, second = Peer(flow), Peer(flow)
    port = first.port
    first.close()
    daemon = Daemon(flow, text=f'''gateway = ( "127.0.0.1:{second.port}?pref=20" "127.0.0.1:{port}?pref=10" )
host_failure_retry = "1s"
max_deliveries_per_connection = 1''')
    client = daemon.connect()
    for _ in range(5):
        client.mail("to@two.test", body=HELLO)
    second.wait(5)
    hosts = {row["address"]: row["state"] for row in daemon.console("domain", "two.test")["next_hops"]}
    expect(len(hosts) == 2, f"next hops are {hosts}")
    first = Peer(flow, port=port)

    def first_has_mail():
        client.mail("to@two.test", body=HELLO)
        return first.mails
    wait_until(first_has_mail, "the first gateway to be used again")
    expect_equal(len(daemon.lines("T")), 0, "T lines: the second gateway was there all the time")


def test_leaves_a_failed_host_alone(flow):
    peer = Peer(flow, banner="421 not now")
    daemon = Daemon(flow, sink_port=peer.port, text='host_failure_retry = "600ms" retry_interval = "10ms"')
    client = daemon.connect()
    began = time.monotonic()
    for _ in range(20):
        client.mail("to@host.test", body=HELLO)
    wait_until(lambda: len(peer.opened) >= 5, "five tries")
    for i, at in enumerate(peer.opened[:5]):
        expect(at - began > i * 0.6 - 0.1, f"tries after {[round(o - began, 2) for o in peer.opened]} s")
    shown = daemon.console("domain", "host.test")
    expect("421 not now" in shown["last_trouble"], f"the console shows {shown['last_trouble']}")
    expect(shown["next_hops"][0]["failures"] >= 4, f"the console shows {shown['next_hops']}")


def test_retries_ever_more_slowly_and_says_when(flow):
    peer = Peer(flow, mail="450 4.2.0 later")
    daemon = Daemon(flow, sink_port=peer.port, text='retry_interval = "200ms" max_retry_interval = "800ms"')
    began = time.monotonic()
    daemon.connect().mail("to@later.test", body=HELLO)
    # If intervals went on doubling, this many would take longer than anybody waits.
    lines = daemon.wait_lines("T", 11)[:11]
    expect_equal([line[10] for line in lines], [str(n) for n in range(11)], "retries in the log")
    tries = [at - began for at, _ in peer.said("MAIL")]
    for at, least in zip(tries, (0, 0.2, 0.6, 1.4, 2.2, 3.0)):
        expect(at > least - 0.05, f"tries after {[round(t, 2) for t in tries]} s")
    shown = wait_until(lambda: try_delayed(daemon, lines[0][1]), "the message in the delayed queue")
    expect(shown["attempts"] >= 6 and "450 4.2.0 later" in shown["last_reply"], f"the console shows {shown}")
    expect(shown["due_at"], "no due time")
    expect_equal(daemon.console("domain", "later.test")["options"]["retry_interval_ms"], 200, "retry_interval")


def try_delayed(daemon, message):
    delivery = daemon.console("message", message)["deliveries"][0]
    return delivery if delivery["place"] == "delayed queue" else None


test_retries_ever_more_slowly_and_says_when.short = True


def test_keeps_to_its_schedule_over_a_restart(flow):
    """What was tried, when it is due, and who has it already is not forgotten, killed or stopped."""
    busy = [True]
    peer = Peer(flow, rcpt=lambda s: "450 4.2.0 busy" if busy[0] and s.rcpt.startswith("busy") else True)
    daemon = Daemon(flow, sink_port=peer.port, text='retry_interval = "1h"')
    recipients = [f"{kind}{i}@kept.test" for i in range(4) for kind in ("good", "busy")]
    text = daemon.connect().mail(recipients, body=HELLO)[1]
    message = text.split()[-1]
    before = wait_until(lambda: try_delayed(daemon, message), "the message in the delayed queue")
    # The message, and what its first attempt came to.
    wait_until(lambda: daemon.counter("spool.records") >= 2, "the state in the spool")
    for stop in (daemon.kill, daemon.terminate):
        stop()
        daemon.start()
        after = wait_until(lambda: daemon.queued() == 1 and try_delayed(daemon, message), "the message")
        for key in ("due_at", "attempts", "recipients_pending", "recipients", "last_reply"):
            expect_equal(after[key], before[key], f"{key} after a restart")
    expect_equal(len(peer.said("RCPT")), 8, "recipients that the peer was asked to take")
    busy[0] = False
    daemon.console("message", "retry", message)
    daemon.wait_for_rest()
    expect_equal([sorted(m.recipients) for m in peer.mails], [[f"{k}{i}@kept.test" for i in range(4)]
                                                              for k in ("good", "busy")], "recipients")


test_keeps_to_its_schedule_over_a_restart.short = True


def test_gives_up_mail_that_is_too_old(flow):
    peer = Peer(flow, mail=lambda s: "450 4.2.0 later" if s.sender else True)
    daemon = Daemon(flow, text=HASTE + f'''message_expiration = "1500ms"
domain "late.test" {{ gateway = "127.0.0.1:{peer.port}" }}
domain "sender.test" {{ gateway = "127.0.0.1:{peer.port}" message_expiration = "1h" }}''')
    daemon.connect().mail("to@late.test", body=HELLO)
    line = daemon.wait_lines("P", 1)[0]
    expect("5.4.7" in line[13] or "exceeded" in line[13], f"the log has {line}")
    mail = peer.wait(1)[0]
    expect_equal((mail.sender, mail.recipients), ("", ["from@sender.test"]), "the bounce's envelope")
    expect(len(daemon.lines("T")) >= 2, "it was hardly tried")


def test_gives_up_mail_in_time(flow):
    """Not only when its next try would be due."""
    peer = Peer(flow, mail="450 4.2.0 later")
    daemon = Daemon(flow, sink_port=peer.port, text='retry_interval = "1h" message_expiration = "1s"')
    daemon.connect().mail("to@late.test", sender="", body=HELLO)
    line = daemon.wait_lines("P", 1)[0]
    expect("exceeded" in line[13] and len(peer.said("MAIL")) == 1, f"the log has {line}")


def test_does_not_send_what_is_suspended(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text='domain "wait.test" { suspend_delivery = true }')
    daemon.connect().mail(["to@wait.test", "to@go.test"], body=HELLO)
    peer.wait(1)
    shown = daemon.console("domain", "wait.test")
    expect_equal((shown["state"], shown["queue"]["active"]), ("suspended", 1), "state, and queue")
    expect("suspend_delivery" in shown["reason"], f"the reason is {shown['reason']}")
    status, _ = daemon.terminate()
    expect_equal(status, 0, "exit status")
    daemon.start()
    wait_until(lambda: daemon.queued() == 1, "the suspended message after a restart")
    daemon.console("resume", "domain", "wait.test")
    expect_equal(peer.wait(2)[1].recipients, ["to@wait.test"], "recipient")


def test_tells_a_name_that_cannot_be_looked_up(flow):
    """No gateway, and no name server that answers: asked again later. A literal needs none."""
    daemon = Daemon(flow, text=HASTE)
    began = time.monotonic()
    daemon.connect().mail(["to@no-such-name.test", "to@[127.0.0.1]"], body=HELLO)
    names = {"no-such-name.test", "[127.0.0.1]"}
    wait_until(lambda: {line[5] for line in daemon.lines("T")} >= names, "a T line of each")
    texts = " ".join(line[13] for line in daemon.lines("T"))
    expect("cannot look up MX of no-such-name.test" in texts, f"the log has {texts}")
    expect(time.monotonic() - began < 60, "it took long")
