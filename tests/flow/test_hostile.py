"""Clients and next hops by the thousand that are slow, silent, deaf or greedy: others are served
meanwhile, memory keeps to its budgets, and counters say which limit did what. And clients that
try to make two messages of one."""

import json
import os
import resource
import socket
import struct

from flow import Client, Daemon, Sink, Skip, expect, expect_equal, free_port, wait_until
from peer import Peer

MIB = 1 << 20
KIB = 1 << 10
HELLO = "Subject: hello\r\n\r\nhello\r\n"


# ---- one message made of two ----

# What some server somewhere has taken for the end of the data; after CR LF "." CR LF only the
# standard's own is left.
LAX_ENDS = (b"\n.\n", b"\n.\r\n", b"\n.\r", b"\r.\r", b"\r.\r\n", b"\r.\n", b"\r\n.\n", b"\r\n.\r", b"\n\n.\r\n",
            b"\r\r.\r\n", b"\r\n\0.\r\n", b"\r\n\0.\n", b"\r\n\0.\r", b"\r\n.\0\r\n", b"\n\0.\n", b"\r\0\n.\r\n",
            b"\r\n.\r\0\n", b"\r\0\n.\r\0\n")
SECOND = b"MAIL FROM:<evil@sender.test>\r\nRCPT TO:<victim@good.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nno\r\n"


def unread_bytes(port, client_port):
    """What waits in the kernel for the program to read, of one connection: sock_diag(7)."""
    here = socket.inet_aton("127.0.0.1") + bytes(12)
    request = struct.pack("=IHHIIBBBBI", 72, 20, 1, 0, 0, socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
    request += struct.pack(">HH", port, client_port) + here + here + bytes(4) + b"\xff" * 8
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as diag:
        diag.send(request)
        answer = diag.recv(8192)
    if struct.unpack_from("=H", answer, 4)[0] != 20:
        raise Skip("this kernel does not tell about sockets")
    return struct.unpack_from("=I", answer, 72)[0]


def smuggle(client, daemon, sequence, cut):
    """A carrier with a second message behind `sequence`, whose first `cut` bytes arrive before the rest."""
    for line, code in (("MAIL FROM:<from@sender.test>", 250), ("RCPT TO:<to@good.test>", 250), ("DATA", 354)):
        client.say(line, code)
    client.send(b"Subject: carrier\r\n\r\nfirst" + sequence[:cut])
    if cut > 0:
        own_port = client.socket.getsockname()[1]
        wait_until(lambda: unread_bytes(daemon.port, own_port) == 0, "the first part to be read")
    client.send(sequence[cut:] + SECOND + b".\r\n")
    return client.reply()


def every_cut(client, daemon):
    for sequence in LAX_ENDS:
        for cut in range(len(sequence) + 1):
            code, text = smuggle(client, daemon, sequence, cut)
            yield sequence, cut, code, text
            # One reply, and the dialogue is where it was.
            client.say("NOOP", 250)
            client.say("RSET", 250)


def test_refuses_every_lax_end_of_data(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, listener="max_idle_commands = 1000")
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    for sequence, cut, code, text in every_cut(client, daemon):
        expect_equal(code, 550, f"reply to {sequence!r} cut at {cut} ({text})")
    expect_equal(client.mail("next@good.test", body=HELLO, ehlo=False)[0], 250, "reply to an honest message")
    peer.wait(1)
    daemon.wait_for_rest()
    expect_equal([m.recipients for m in peer.mails], [["next@good.test"]], "recipients at the next hop")


test_refuses_every_lax_end_of_data.short = True


def test_sends_no_lax_end_of_data(flow):
    """Where bare CR and LF are accepted, the laxest next hop still sees one message for each."""
    peer = Peer(flow, ends=(b"\r\n.\r\n",) + LAX_ENDS)
    daemon = Daemon(flow, sink_port=peer.port, listener='bare_lf = "accept_as_data" max_idle_commands = 1000')
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    accepted = 0
    for sequence, cut, code, text in every_cut(client, daemon):
        expect_equal(code, 550 if b"\0" in sequence else 250, f"reply to {sequence!r} cut at {cut} ({text})")
        accepted += code == 250
    mails = peer.wait(accepted)
    daemon.wait_for_rest()
    expect_equal(len(peer.mails), accepted, "messages at the next hop")
    for mail in mails:
        expect_equal((mail.sender, mail.recipients), ("from@sender.test", ["to@good.test"]), "envelope")
        expect(b"smuggled" in mail.data, f"cut: {mail.data!r}")
    expect(not any("evil" in line or "victim" in line for _, line in peer.said("")), "it was taken for commands")


test_sends_no_lax_end_of_data.short = True


def test_passes_on_dots_so_that_lax_servers_see_one_message(flow):
    """What may be accepted as it is arrives with unchanged bytes, however close it comes to an end."""
    peer = Peer(flow, ends=(b"\r\n.\r\n",) + LAX_ENDS)
    daemon = Daemon(flow, sink_port=peer.port)
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    bodies = [b"..\r\n", b". \r\n", b".\t\r\n", b"..\r\n..\r\n", b". \r\n. \r\n", b".\x0b\r\n", b".\x85\r\n", b"x.\r\n",
              b"\r\n..\r\n", b".x\r\n", b".\xe2\x80\xa8\r\n", b"...\r\n"]
    for body in bodies:
        data = b"Subject: dots\r\n\r\nfirst\r\n" + body + SECOND
        expect_equal(client.mail("to@good.test", body=data, ehlo=False)[0], 250, f"reply to {body!r}")
    mails = peer.wait(len(bodies))
    daemon.wait_for_rest()
    expect_equal(len(peer.mails), len(bodies), "messages at the next hop")
    got = sorted(m.data.partition(b"first\r\n")[2] for m in mails)
    # For this one a CR after the dot is enough.
    expect_equal(got, sorted(body + SECOND + b".\r" for body in bodies), "what arrived")


# ---- clients by the thousand ----


class Hostile:
    """build/fwhostile: `count` bad clients of one kind, until they are told to go."""

    NONE = {"opened": 0, "failed": 0, "open": 0, "settled": 0, "closed": 0, "sent_bytes": 0, "replies": {}}

    def __init__(self, flow, daemon, kind, count, *options):
        self.flow = flow
        self.stats_file = flow.path / f"hostile-{len(flow.programs)}.json"
        self.process = flow.start("fwhostile", "--to", f"127.0.0.1:{daemon.port}", "--kind", kind, "--sources", "200",
                                  "--connections", count, "--stats-file", self.stats_file, *options)

    def stats(self):
        expect(self.process.poll() is None, f"fwhostile ended: {self.flow.output(self.process)}")
        try:
            return json.loads(self.stats_file.read_text())
        except (OSError, ValueError):
            return self.NONE

    def wait(self, key, count):
        wait_until(lambda: self.stats()[key] >= count, f"{count} {key} of them, there are {self.stats()}")

    def replies(self, code):
        return self.stats()["replies"].get(str(code), 0)

    def stop(self):
        self.flow.stop(self.process)


# A crowd comes faster than a busy machine accepts: those for whom the kernel has no place would hear
# nothing at all, or late.
CROWD = "listen_backlog = 4096 "


def scaled(flow, count):
    """The sanitizers' programs are slow, and it is others that they look for."""
    return count if flow.variant == "release" else count // 20


def expect_memory(flow, daemon, limit, what):
    """Of a release; the others' allocators keep much for themselves."""
    found = daemon.resident_bytes()
    if flow.variant == "release":
        expect(found < limit, f"{what}: {found / MIB:.1f} MiB are resident, at most {limit / MIB:.1f} should be")


def goes_through(peer, port, count=3):
    """Somebody else's messages, from connection to delivery."""
    before = len(peer.mails)
    for _ in range(count):
        client = Client(port)
        expect_equal(client.mail("next@good.test", body=HELLO)[0], 250, "reply to somebody else")
        client.say("QUIT", 221)
        client.close()
    peer.wait(before + count)


def ends_cleanly(daemon):
    code, _ = daemon.terminate()
    expect_equal(code, 0, "exit status with all of them connected")


# Bytes of memory that an idle connection takes, with room for what the allocator rounds up: measured
# were 1 750.
IDLE_BYTES = 3 * KIB


def descriptors():
    """That a process may have here."""
    if os.geteuid() == 0:
        return 80000
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def test_keeps_ten_thousand_idle_connections(flow):
    count = scaled(flow, 10000)
    if descriptors() < 2 * count + 4000:
        raise Skip(f"only {descriptors()} file descriptors are allowed")
    peer = Peer(flow)
    limit = count - count // 10
    other = free_port()
    daemon = Daemon(flow, sink_port=peer.port, text=CROWD, listener=f'''listener_sessions = {limit} max_connections_per_peer = {limit}
        listen "127.0.0.1:{other}" {{ }}''')
    goes_through(peer, other, 20)
    empty = daemon.resident_bytes()
    hostile = Hostile(flow, daemon, "idle", count)
    hostile.wait("opened", count)
    wait_until(lambda: hostile.replies(220) + hostile.replies(421) == count, f"all to hear something: {hostile.stats()}")
    expect_equal(hostile.replies(220), limit, "connections greeted")
    counters = daemon.counters()
    expect_equal(counters["scheduler.smtp_sessions_open"], limit, "sessions")
    expect_equal(counters["master.refused_connections"], count - limit, "refused by listener_sessions")
    expect_memory(flow, daemon, empty + limit * IDLE_BYTES + 4 * MIB, f"{limit} idle connections")
    goes_through(peer, other)
    ends_cleanly(daemon)
    hostile.wait("closed", count)


test_keeps_ten_thousand_idle_connections.short = True


def test_idle_time_ends_a_thousand_at_once(flow):
    count = scaled(flow, 1000)
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, listener='idle_time = "2s"', text=CROWD)
    hostile = Hostile(flow, daemon, "idle", count)
    hostile.wait("closed", count)
    expect_equal(hostile.replies(421), count, "told why")
    expect_equal(daemon.counter("scheduler.smtp_timeout_idle"), count, "counted")
    daemon.wait_for_clients()
    goes_through(peer, daemon.port)


def test_leaves_descriptors_for_its_own_work(flow):
    """Clients can take half of them; deliveries, spool and console go on."""
    peer = Peer(flow)
    other = free_port()
    daemon = Daemon(flow, sink_port=peer.port, start=False, text="""server_max_file_descriptors = 400
        server_max_outbound_connections = 50""")
    daemon.start(prefix=("bash", "-c", 'ulimit -n 400; exec "$@"', "-"))
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    hostile = Hostile(flow, daemon, "idle", 600)
    wait_until(lambda: hostile.replies(220) + hostile.replies(421) == 600, f"all to hear something: {hostile.stats()}")
    expect_equal(hostile.replies(220), 199, "connections greeted")
    expect_equal(daemon.counter("master.refused_files"), 401, "refused for want of descriptors")
    for _ in range(3):
        expect_equal(client.mail("next@good.test", body=HELLO, ehlo=False)[0], 250, "reply to somebody else")
    peer.wait(3)
    ends_cleanly(daemon)


def test_serves_others_beside_slow_writers(flow):
    """A thousand bring commands a byte at a time, a thousand messages."""
    count = scaled(flow, 1000)
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text=CROWD)
    goes_through(peer, daemon.port, 20)
    empty = daemon.resident_bytes()
    crowds = [Hostile(flow, daemon, kind, count) for kind in ("slow-commands", "slow-data")]
    for hostile in crowds:
        hostile.wait("settled", count)
        sent = hostile.stats()["sent_bytes"]
        wait_until(lambda: hostile.stats()["sent_bytes"] > sent + 5 * count, "five more bytes of each")
    # A buffer for the line or the body, and the session.
    expect_memory(flow, daemon, empty + 2 * count * 12 * KIB + 4 * MIB, f"{count} slow writers of each kind")
    receiving = daemon.console("memory")["receiving_bytes"]
    expect(count * 4 * KIB <= receiving <= count * 6 * KIB, f"{receiving} bytes under reception")
    goes_through(peer, daemon.port)
    for hostile in crowds:
        hostile.stop()
    daemon.wait_for_clients()
    expect_equal(daemon.console("memory")["receiving_bytes"], 0, "bytes under reception afterwards")
    ends_cleanly(daemon)


test_serves_others_beside_slow_writers.short = True

# What a client can make the program hold that never reads: replies up to the limit, one receipt of
# input, and the session.
DEAF_BYTES = (16 + 16 + 12) * KIB


def test_serves_others_beside_those_who_never_read(flow):
    count = scaled(flow, 1000)
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text=CROWD + 'max_idle_commands = 1000000 stop_timeout = "1s"')
    goes_through(peer, daemon.port, 20)
    empty = daemon.resident_bytes()
    hostile = Hostile(flow, daemon, "deaf", count)
    hostile.wait("settled", count)
    wait_until(lambda: daemon.counter("scheduler.smtp_output_blocked") >= count, "all to be blocked")
    goes_through(peer, daemon.port)
    expect_memory(flow, daemon, empty + count * DEAF_BYTES + 4 * MIB, f"{count} that never read")
    # The kernel does not keep what the program did not: 70 bytes of reply each.
    commands = daemon.counter("scheduler.smtp_commands")
    expect(commands < count * 2500, f"{commands} commands were obeyed whose replies nobody reads")
    ends_cleanly(daemon)


test_serves_others_beside_those_who_never_read.short = True


def test_serves_others_beside_messages_that_stop(flow):
    """They are given up when they stall, so that new mail is taken again long before idle_time."""
    size = 200 * KIB
    count = scaled(flow, 1000)
    budget = count * size // 8
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text=f"{CROWD} reception_budget = {budget}")
    goes_through(peer, daemon.port, 20)
    empty = daemon.resident_bytes()
    hostile = Hostile(flow, daemon, "stop-in-data", count, "--size", size)
    wait_until(lambda: hostile.stats()["settled"] + hostile.replies(452) >= count, f"all to stop: {hostile.stats()}")
    expect(daemon.counter("scheduler.smtp_crowded_out") + daemon.counter("scheduler.smtp_refused_memory") > 0,
           "no limit was met")
    wait_until(lambda: daemon.console("memory")["receiving_bytes"] <= budget, "those that stall to give way")
    goes_through(peer, daemon.port)
    expect_memory(flow, daemon, empty + 2 * budget + count * 28 * KIB + 4 * MIB, f"{count} that stopped")
    hostile.stop()
    daemon.wait_for_clients()
    expect_equal(daemon.console("memory")["receiving_bytes"], 0, "bytes under reception afterwards")


test_serves_others_beside_messages_that_stop.short = True


def test_serves_others_beside_a_few_that_fill_the_budget(flow):
    """A dozen connections must not be enough to keep all others out."""
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text=CROWD + 'reception_budget = "8M"')
    hostile = Hostile(flow, daemon, "stop-in-data", 12, "--size", 1000 * KIB)
    hostile.wait("settled", 12)
    wait_until(lambda: daemon.console("memory")["receiving_bytes"] > 8 * MIB, "more than the budget")
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    wait_until(lambda: client.say("MAIL FROM:<from@sender.test>")[0] == 250, "mail to be taken again")
    expect(daemon.counter("scheduler.smtp_crowded_out") > 0, "nobody gave way")
    client.say("RSET", 250)
    goes_through(peer, daemon.port)


def test_serves_others_beside_endless_envelopes(flow):
    """Recipients are memory, too."""
    count = scaled(flow, 1000)
    budget = count * 30 * KIB
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text=f"{CROWD} reception_budget = {budget}")
    goes_through(peer, daemon.port, 20)
    empty = daemon.resident_bytes()
    # 260 bytes each.
    hostile = Hostile(flow, daemon, "stop-in-envelope", count, "--size", 1000)
    wait_until(lambda: daemon.counter("scheduler.smtp_refused_memory") > 0, "the budget to be used up")
    wait_until(lambda: hostile.stats()["settled"] + hostile.replies(452) >= count, f"all to stop: {hostile.stats()}")
    wait_until(lambda: daemon.console("memory")["receiving_bytes"] <= budget, "those that stall to give way")
    goes_through(peer, daemon.port)
    # Text grows by doubling.
    expect_memory(flow, daemon, empty + 4 * budget + count * 40 * KIB + 4 * MIB, f"{count} long envelopes")
    hostile.stop()
    daemon.wait_for_clients()


test_serves_others_beside_endless_envelopes.short = True


# ---- next hops by the thousand ----


def send_to(flow, daemon, domain, messages, size):
    flow.load(daemon, "--messages", messages, "--size", size, "--domains", 1, "--domain-format", domain,
              "--id-prefix", domain, "--sessions", 10)


def outbound(daemon, domain):
    return daemon.console("domain", domain)


def test_delivers_beside_next_hops_that_misbehave(flow):
    """A thousand connections to those that do not read, do not answer, or answer without end."""
    count = scaled(flow, 1000) // 4
    bad = {
        "unread.test": Sink(flow, "--slow-read", "2000"),
        "silent.test": Sink(flow, "--fault", "mail:silence"),
        "endless.test": Sink(flow, "--fault", "dot:flood@0.9"),
        "unanswered.test": Sink(flow, "--fault", "dot:silence"),
    }
    peer = Peer(flow)
    stanzas = "".join(f'''domain "{name}" {{ gateway = "127.0.0.1:{sink.port}" max_outbound_connections = {count}
        retry_interval = "1s" }}
        ''' for name, sink in bad.items())
    daemon = Daemon(flow, sink_port=peer.port, text=stanzas + 'stop_timeout = "1s"')
    goes_through(peer, daemon.port, 20)
    empty = daemon.resident_bytes()
    for name in bad:
        send_to(flow, daemon, name, count, "200k" if name == "unread.test" else "10k")
    for name in ("unread.test", "silent.test", "unanswered.test"):
        wait_until(lambda: len(outbound(daemon, name)["connections"]) >= min(50, count), f"connections to {name}")
        wait_until(lambda: outbound(daemon, name)["counters"]["most_connections"] == count, f"all of those to {name}")
    wait_until(lambda: outbound(daemon, "endless.test")["counters"]["transient_failures"] > 0, "an endless reply to end")
    goes_through(peer, daemon.port, 50)
    # Bodies, and 6 KiB for each connection.
    bodies = 3 * count * 10 * KIB + count * 200 * KIB
    expect_memory(flow, daemon, empty + bodies * 5 // 4 + 4 * count * 8 * KIB + 8 * MIB, "connections to bad next hops")
    ends_cleanly(daemon)


test_delivers_beside_next_hops_that_misbehave.short = True


def test_keeps_bodies_for_slow_next_hops_within_the_budget(flow):
    """What is read back from the spool for next hops that do not take it is limited, and a domain
    that has a good one gets its turn."""
    messages, size = 100, 500 * KIB
    sink = Sink(flow, "--slow-read", "2000")
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text=f'''memory_budget = "4M" stop_timeout = "1s"
        domain "unread.test" {{ gateway = "127.0.0.1:{sink.port}" max_outbound_connections = 100 suspend_delivery = true }}''')
    goes_through(peer, daemon.port, 20)
    empty = daemon.resident_bytes()
    send_to(flow, daemon, "unread.test", messages, size)
    daemon.console("resume", "domain", "unread.test")
    wait_until(lambda: daemon.counter("scheduler.outbound.held_by_memory") > 0, "the budget to be used up")
    view = outbound(daemon, "unread.test")
    expect_equal(view["held_by"], "memory_budget", "what the console says of the slow domain")
    expect("memory_budget = 4194304" in view["reason"], f"its reason: {view['reason']}")
    for _ in range(3):
        send_to(flow, daemon, "good.test", 10, 100 * KIB)
    peer.wait(20 + 30)
    loaded = daemon.console("memory")["loaded_body_bytes"]
    expect(0 < loaded <= 4 * MIB, f"{loaded} bytes of bodies were read back")
    # Resident bodies, those read back, and what passes through reception.
    expect_memory(flow, daemon, empty + 2 * 4 * MIB + 24 * MIB, "bodies that nobody takes")
    daemon.terminate()


def reference(flow):
    """Names of all options."""
    return {line.split("\t")[0].strip() for line in flow.run("flywheeld", "--reference").splitlines()}


# Each limit on what others can make the program hold or do, and what counts how often it refused,
# held back or ended something. Those in brackets are fixed.
LIMITS = (
    ("listener_sessions", "master.refused_connections"),
    ("service_sessions", "master.refused_service"),
    ("max_connections_per_peer", "master.refused_peer"),
    ("server_max_file_descriptors", "master.refused_files"),
    ("idle_time", "scheduler.smtp_timeout_idle"),
    ("session_timeout", "scheduler.smtp_timeout_session"),
    ("max_idle_commands", "scheduler.smtp_limit_idle_commands"),
    ("max_receptions_per_connection", "scheduler.smtp_limit_receptions"),
    ("max_recipients_per_message", "scheduler.smtp_refused_recipients"),
    ("max_message_size", "scheduler.smtp_refused_size"),
    ("max_line_length", "scheduler.smtp_refused_long_line"),
    ("(command line)", "scheduler.smtp_refused_long_command"),
    ("(Received fields)", "scheduler.smtp_refused_loop"),
    ("(replies not read)", "scheduler.smtp_output_blocked"),
    ("(time to close)", "scheduler.smtp_timeout_closing"),
    ("reception_budget", "scheduler.smtp_refused_memory"),
    ("reception_budget", "scheduler.smtp_crowded_out"),
    ("min_free", "scheduler.smtp_refused_spool_full"),
    ("ring_slots", "scheduler.smtp_paused"),
    ("memory_budget", "scheduler.bodies_dropped"),
    ("memory_budget", "scheduler.outbound.held_by_memory"),
    ("max_outbound_connections", "scheduler.outbound.held_by_connections"),
    ("server_max_outbound_connections", "scheduler.outbound.held_by_server"),
    ("outbound_throttle_messages", "scheduler.outbound.throttled"),
    ("outbound_throttle_connections", "scheduler.outbound.throttled"),
    ("backlog", "pool.refused"),
)


def test_every_limit_is_shown_with_what_it_refused(flow):
    """A number in the configuration, a counter, and a line of the console for each."""
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port)
    goes_through(peer, daemon.port, 1)
    counters = daemon.counters()
    options = reference(flow)
    for option, counter in LIMITS:
        expect(option.startswith("(") or option in options, f"{option} is no option")
        expect(counter in counters, f"{option}: there is no counter {counter}")
    limits = {row["limit"]: row for row in outbound(daemon, "good.test")["limits"]}
    for name in ("max_outbound_connections", "server_max_outbound_connections", "memory_budget",
                 "outbound_throttle_messages", "outbound_throttle_connections"):
        expect(name in limits, f"\"domain\" does not show {name}")
    memory = daemon.console("memory")
    for name in ("resident_body_bytes", "loaded_body_bytes", "memory_budget_bytes", "receiving_bytes",
                 "reception_budget_bytes"):
        expect(name in memory, f"\"memory\" does not show {name}")
