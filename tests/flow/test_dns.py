"""Where mail goes: what the name service says, and what becomes of mail when it says no, nothing, or lies."""

import errno
import os
import re
import subprocess

from flow import Daemon, Skip, expect, expect_equal, free_port, wait_until, ROOT
from names import NameServer, SilentServer, Zone
from peer import Peer

HELLO = "Subject: hello\r\n\r\nHello\r\n"
SHAPES = ROOT / "tests" / "unit" / "route_shapes.txt"
ZONE = "shapes.test"


# ---- the shapes of tests/unit/route_shapes.txt, on real name servers ----


class Shape:
    """Its names are moved below one of their own, its addresses to loopback."""

    def __init__(self, number, what):
        self.number, self.what = number, what
        self.domain, self.records, self.wanted = "", [], []

    def move(self, text):
        text = re.sub(r"(?i)(?<!self)\.(test|example)\b", lambda m: f".s{self.number}.{ZONE}", text)
        return text.replace("192.0.2.", "127.0.2.").replace("198.51.100.", "127.0.2.10")

    def finish(self):
        self.domain = self.move(self.domain).lower()
        self.records = [self.move(line).split(" ", 2) for line in self.records]
        self.wanted = [self.move(line) for line in self.wanted]

    def faults(self):
        """Names that the name service fails for: the state of a zone of their own, which fails for all types."""
        found = {}
        for owner, _, data in self.records:
            if data.startswith("!"):
                states = {"!SERVFAIL": "broken", "!BOGUS": "bogus", "!TIMEOUT": None, "!CANCELLED": None}
                found[owner] = found.get(owner) or states[data]
        return found

    def hosts(self):
        """Addresses of the exchanger that gets the mail, of which a resolver may put any first; IPv6 is not reached
        here. None: the mail fails."""
        if not re.match(r"\d+ \S+ [0-9a-f:.]+$", self.wanted[0]):
            return None
        rows = [line.split() for line in self.wanted if "." in line.split()[2]]
        return [address for _, name, address in rows if name == rows[0][1]]

    def practical(self):
        """Not: silence (it has tests of its own), one type that fails alone, IPv6 alone, names outside the zone."""
        faults = self.faults()
        mixed = any(owner in faults and kind in ("A", "AAAA") and not data.startswith("!") and
                    (owner, "MX") not in {(o, k) for o, k, d in self.records if d.startswith("!")}
                    for owner, kind, data in self.records)
        return None not in faults.values() and not mixed and self.hosts() != [] and ZONE in self.domain and \
            (self.domain not in faults or "MX" in {k for o, k, _ in self.records if o == self.domain}) and \
            "2001:db8::99" not in {data for _, _, data in self.records}


def read_shapes():
    shapes = []
    for line in SHAPES.read_text().splitlines():
        if line.startswith("## "):
            shapes.append(Shape(len(shapes), line[3:]))
        elif line.startswith("> "):
            shapes[-1].domain = line[2:]
        elif line.startswith("= "):
            shapes[-1].wanted.append(line[2:])
        elif line and not line.startswith("#"):
            shapes[-1].records.append(line)
    for shape in shapes:
        shape.finish()
    return [shape for shape in shapes if shape.practical()]


def absolute(kind, data):
    """Names as in a zone file: an exchanger that is an address, too."""
    if kind not in ("MX", "CNAME"):
        return data
    return data if data.endswith(" .") or data == "." else data + "."


def zones_of(shapes):
    """One zone for all, and one for each name that fails."""
    main, faulty = Zone(ZONE), []
    for shape in shapes:
        cuts = {}
        for owner, state in shape.faults().items():
            cuts[owner] = Zone(owner, state=state)
        faulty += cuts.values()
        for owner, kind, data in shape.records:
            zone = cuts.get(owner, main)
            if kind == "SECURE" or ZONE not in owner:
                continue
            if data.startswith("!"):
                # Something that is not true, to be believed by who does not look.
                data = f"10 lie.{ZONE}" if kind == "MX" else "127.0.2.66" if kind == "A" else "::1"
            zone.records += f"{owner}. {kind} {absolute(kind, data)}\n"
    main.records += f"lie.{ZONE}. A 127.0.2.66\n"
    return [main, *faulty]


class Hosts:
    """A receiver at each address that some shape delivers to, and where a forged answer leads."""

    def __init__(self, flow, addresses):
        self.port = free_port()
        self.peers = {address: Peer(flow, self.port, address) for address in addresses}

    def who_took(self, recipient):
        return [address for address, peer in self.peers.items()
                for mail in list(peer.mails) if recipient in mail.recipients]


def check_shape(shape, daemon, hosts, lines):
    """What is wrong; None: nothing."""
    recipient, wanted = f"to@{shape.domain}", shape.hosts()
    if wanted:
        wait_until(lambda: hosts.who_took(recipient), f"mail of \"{shape.what}\"")
        took = hosts.who_took(recipient)
        return None if len(took) == 1 and took[0] in wanted else f"{shape.what}: {took} took it, wanted {wanted}"
    text = lines.get(shape.domain, "")
    code, enhanced = shape.wanted[0].split()[:2]
    said = text.replace(" [internal]", "", 1)
    if hosts.who_took(recipient) or not said.startswith(f"{code} {enhanced}"):
        return f"{shape.what}: {text!r}, wanted {shape.wanted[0]!r}"
    # What was forged how is told in the validator's own words.
    beginning = shape.wanted[0].partition(": signature")[0][:150]
    return None if said.startswith(beginning) else f"{shape.what}: {said!r}, wanted {shape.wanted[0]!r}"


def test_routes_mail_as_the_rfcs_ask(flow):
    """At least 40 shapes of MX records, in signed zones: who gets the mail, or what its sender is told."""
    shapes = read_shapes()
    expect(len(shapes) >= 40, f"only {len(shapes)} shapes")
    server = NameServer(flow, *zones_of(shapes), Zone("self.test", "mta A 203.0.113.1", "plain"))
    hosts = Hosts(flow, {host for shape in shapes for host in shape.hosts() or ()} | {"127.0.2.66"})
    daemon = Daemon(flow, listener=f'listen "127.0.2.99:{hosts.port}" {{ }}', text=f'''hostname = "mta.self.test"
remote_smtp_port = {hosts.port}
retry_interval = "1h"
{server.resolver('timeout = "60s"')}''')
    client = daemon.connect()
    for shape in shapes:
        client.mail(f"to@{shape.domain}", sender="", body=HELLO)
    failing = [shape for shape in shapes if shape.hosts() is None]
    verdicts = wait_until(lambda: (v := {line[5]: line[13] for kind in "PT" for line in daemon.lines(kind)
                                         if "cannot connect" not in line[13]}) and
                          {s.domain for s in failing} <= set(v) and v, "a verdict on each that fails")
    wrong = [text for text in (check_shape(shape, daemon, hosts, verdicts) for shape in shapes) if text]
    expect(not wrong, "\n".join(wrong))
    expect_equal(hosts.peers["127.0.2.66"].mails, [], "mail that followed a forged answer")
    counters = daemon.counters()
    for name in ("nxdomain", "null_mx", "no_address", "loop", "servfail", "bogus", "found"):
        expect(counters[f"scheduler.outbound.route_{name}"] > 0, f"route_{name} is not counted")
    for name in ("alias", "dead", "literal"):
        expect(counters[f"scheduler.outbound.mx_{name}"] > 0, f"mx_{name} is not counted")


# ---- failures ----


def test_bounces_mail_for_domains_that_are_not_there(flow):
    """What waits fails, and what comes until the answer is too old, without asking again."""
    server, home = NameServer(flow, Zone("zone.test", "null MX 0 .")), Peer(flow)
    daemon = Daemon(flow, text=f'domain "sender.test" {{ gateway = "127.0.0.1:{home.port}" }}\n{server.resolver()}')
    client = daemon.connect()
    client.mail("to@gone.zone.test", body=HELLO)
    client.mail("to@null.zone.test", body=HELLO)
    told = "".join(mail.data.decode() for mail in home.wait(2))
    for status, text in (("5.1.2", "550 5.1.2 [internal] domain gone.zone.test does not exist (NXDOMAIN)"),
                         ("5.1.10", "556 5.1.10 [internal] domain null.zone.test accepts no mail (null MX)")):
        expect(f"Status: {status}" in told and text in re.sub(r"\r\n\s+", " ", told), f"the bounces do not say {text}")
    shown = daemon.console("domain", "gone.zone.test")
    expect_equal((shown["queue"]["active"], shown["last_trouble"]),
                 (0, "domain gone.zone.test does not exist (NXDOMAIN)"), "queue, and trouble")
    asked = daemon.counter("resolver.queries_mx")
    client.mail("other@gone.zone.test", body=HELLO)
    home.wait(3)
    expect_equal(daemon.counter("resolver.queries_mx"), asked, "questions for MX")
    daemon.wait_for_rest()


def test_a_silent_name_server_holds_up_no_other_domain(flow):
    """Each says why it waits; the stop does not wait for what nobody answers."""
    server, peer = SilentServer(flow), Peer(flow)
    daemon = Daemon(flow, schedulers=1, text=f'''domain "good.test" {{ gateway = "127.0.0.1:{peer.port}" }}
retry_interval = "1h"
resolver {{ forwarders = ( "127.0.0.1@{server.port}" ) timeout = "2s" }}''')
    client = daemon.connect()
    client.mail([f"to@d{i}.silent.test" for i in range(20)], body=HELLO)
    # For exchangers, and for a policy of MTA-STS.
    wait_until(lambda: daemon.counter("resolver.pending") == 40, "40 questions under way")
    reason = daemon.console("domain", "d0.silent.test")["reason"]
    expect(reason.startswith("waiting for the name service to answer, since "), f"the reason is {reason}")
    client.mail("to@good.test", body=HELLO)
    peer.wait(1)
    text = "451 4.4.3 [internal] cannot look up MX of d0.silent.test: no answer from the name service in time"
    expect(text in {line[13] for line in daemon.wait_lines("T", 20)}, "no such T line")
    client.mail("again@d0.silent.test", body=HELLO)
    shown = wait_until(lambda: (v := daemon.console("domain", "d0.silent.test"))["queue"]["active"] == 1 and v,
                       "mail that waits")
    expect("no answer from the name service" in shown["held_by"], f"held by {shown['held_by']}")
    expect_equal(daemon.counter("resolver.answers_timeout"), 40, "time-outs")


def test_stops_at_once_while_names_are_looked_up(flow):
    server = SilentServer(flow)
    daemon = Daemon(flow, text=f'resolver {{ forwarders = ( "127.0.0.1@{server.port}" ) timeout = "10m" }}\n'
                    'stop_timeout = "10m"')
    daemon.connect().mail([f"to@d{i}.silent.test" for i in range(50)], body=HELLO)
    wait_until(lambda: daemon.counter("resolver.pending") == 100, "two questions for each domain")
    status, _ = daemon.terminate()
    expect_equal(status, 0, "exit status")
    daemon.start()
    # Those of the spool come home after the start.
    wait_until(lambda: daemon.queued() == 50, "50 messages after a restart")


def test_asks_so_many_questions_at_a_time_and_each_once(flow):
    server = SilentServer(flow)
    daemon = Daemon(flow, schedulers=1, text='resolver { forwarders = ( "127.0.0.1@%u" ) timeout = "10m" '
                    'max_pending = 3 } mta_sts = false' % server.port)
    daemon.connect().mail([f"to@d{i}.silent.test" for i in range(10)], body=HELLO)
    wait_until(lambda: daemon.counter("resolver.waiting") == 7, "seven questions that wait")
    expect_equal(daemon.counter("resolver.pending"), 3, "questions under way")
    digs = [subprocess.Popen([flow.program("flywheel"), "-s", daemon.control, "dig", "d0.silent.test", "MX"],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(5)]
    wait_until(lambda: daemon.counter("resolver.merged") == 5, "five that join the one under way")
    for process in digs:
        process.kill()
        process.wait()
    expect_equal(daemon.counter("resolver.pending"), 3, "questions under way")


# ---- the console ----


def test_digs_and_remembers_until_told_to_forget(flow):
    server = NameServer(flow, Zone("zone.test", "m A 192.0.2.1\na MX 10 m\nt TXT \"one \" \"two\"\n"
                                   "_25._tcp.m TLSA 3 1 1 " + "ab" * 32 + "\nc CNAME m\n"))
    daemon = Daemon(flow, text=server.resolver())
    found = daemon.console("dig", "a.zone.test", "MX")
    expect_equal((found["status"], found["records"], found["secure"]), ("noerror", ["10 m.zone.test."], True), "MX")
    expect_equal(daemon.console("dig", "t.zone.test.", "txt")["records"], ['"one two"'], "TXT")
    expect_equal(daemon.console("dig", "_25._tcp.m.zone.test", "TLSA")["records"], ["3 1 1 " + "ab" * 32], "TLSA")
    expect_equal(daemon.console("dig", "c.zone.test", "A")["alias_of"], "m.zone.test", "the alias")
    expect_equal(daemon.console("dig", "gone.zone.test", "A")["status"], "nxdomain", "no such name")
    expect_equal(daemon.console("dig", "m.zone.test", "AAAA")["status"], "nodata", "no such record")
    expect("is not a type" in daemon.console("dig", "m.zone.test", "SOA", fail=True), "SOA was looked up")
    expect_equal(daemon.console("dig", "m.zone.test", "A")["records"], ["192.0.2.1"], "A")
    server.stop()
    expect_equal(daemon.console("dns_cache", "lookup", "M.zone.test", "A")["records"], ["192.0.2.1"], "remembered")
    expect("no answer about MX" in daemon.console("dns_cache", "lookup", "m.zone.test", "MX", fail=True), "MX is there")
    expect_equal(daemon.console("dig", "m.zone.test", "A")["records"], ["192.0.2.1"], "A without a server")
    before = daemon.console("dns_cache", "stats")
    expect(before["answers_kept"] >= 7 and before["answered_from_cache"] >= 1, f"stats: {before}")
    expect_equal(daemon.console("dns_cache", "flush"), {"answers_forgotten": before["answers_kept"]}, "flush")
    expect_equal(daemon.console("dns_cache", "stats")["answers_kept"], 0, "answers after that")
    expect("no answer" in daemon.console("dns_cache", "lookup", "m.zone.test", "A", fail=True), "A is still there")
    expect(daemon.console("dig", "m.zone.test", "A")["status"] in ("servfail", "timeout"), "A without a server, anew")


# ---- options ----


def dig(daemon, name, kind="A"):
    found = daemon.console("dig", name, kind)
    return found["records"] or found["status"]


def test_knows_names_from_files(flow):
    server = NameServer(flow, Zone("zone.test", "m A 192.0.2.1"))
    hosts, conf, local = flow.path / "hosts", flow.path / "resolv.conf", flow.path / "local"
    hosts.write_text("192.0.2.7 printer.office\n")
    conf.write_text(f"# a comment\nsearch zone.test\nnameserver 127.0.0.1@{server.port}\n")
    local.write_text("local.test. 60 IN SOA a. b. 1 1 1 1 1 ; alone\nx.local.test. 60 IN A 192.0.2.9\n\n")
    daemon = Daemon(flow, text=f'resolver {{ forwarders = ( ) resolv_conf = "{conf}" hosts_file = "{hosts}" '
                    f'local_zone_file = "{local}" }}')
    expect_equal([dig(daemon, name) for name in ("printer.office", "m.zone.test", "x.local.test", "y.local.test")],
                 [["192.0.2.7"], ["192.0.2.1"], ["192.0.2.9"], "nxdomain"], "addresses")


def test_says_which_of_its_files_is_wrong(flow):
    for option in ("local_zone_file", "trust_anchor_file", "root_hints"):
        mode = "recursive" if option == "root_hints" else "forward"
        daemon = Daemon(flow, start=False, name=option, text=f'resolver {{ mode = "{mode}" forwarders = ( ) '
                        f'{option} = "/no/such/file" }}')
        daemon.launch()
        daemon.process.wait(60)
        expect("resolver: cannot read /no/such/file" in daemon.output(), f"{option}: {daemon.output()}")
        expect(daemon.process.returncode != 0, f"{option}: it runs")


def test_asks_the_root_that_it_was_told(flow):
    address = "127.77.77.77"
    try:
        root = SilentServer(flow, address, 53)
    except OSError as error:
        raise Skip(f"port 53 of {address}: {errno.errorcode[error.errno]}") from None
    hints = flow.path / "hints"
    hints.write_text(f". 3600000 NS a.root.test.\na.root.test. 3600000 A {address}\n")
    daemon = Daemon(flow, text=f'resolver {{ mode = "recursive" forwarders = ( ) root_hints = "{hints}" '
                    'timeout = "3s" }')
    expect_equal(daemon.console("dig", "some.name.example", "A")["status"], "timeout", "status")
    expect(root.questions, "nobody asked the root")


def test_validates_with_the_anchors_that_it_was_given(flow):
    server = NameServer(flow, Zone("zone.test", "m A 192.0.2.1"), Zone("old.zone.test", "m A 192.0.2.2", "bogus"))
    key = " ".join(server.anchor.read_text().split(";")[0].split())
    for name, text, wanted in (
            ("none", "", [("noerror", False), ("noerror", False)]),
            ("file", f'trust_anchor_file = "{server.anchor}"', [("noerror", True), ("bogus", False)]),
            ("text", f"trust_anchor = '{key}'" if '"' in key else f'trust_anchor = "{key}"',
             [("noerror", True), ("bogus", False)])):
        daemon = Daemon(flow, name=name, text=server.resolver(text, trusted=False))
        found = [daemon.console("dig", host, "A") for host in ("m.zone.test", "m.old.zone.test")]
        expect_equal([(v["status"], v["secure"]) for v in found], wanted, f"with anchor {name}")
        expect(name == "none" or "expired" in found[1]["why"], f"why it is bogus: {found[1].get('why')}")


def test_keeps_answers_as_long_as_it_was_told(flow):
    server = NameServer(flow, Zone("zone.test", "m 5 A 192.0.2.1\nn 86400 A 192.0.2.2"))
    for text, wanted in (("", [30, 86400, 300]), ('min_ttl = "2h" max_ttl = "3h"', [7200, 10800, 7200])):
        daemon = Daemon(flow, name=str(wanted[0]), text=server.resolver(text))
        for host, seconds in zip(("m", "n", "gone"), wanted):
            kept = daemon.console("dig", f"{host}.zone.test", "A")["kept_for_s"]
            expect(seconds - 5 <= kept <= seconds, f"{text} {host} is kept for {kept} s, wanted {seconds}")


def test_keeps_so_many_answers(flow):
    server = NameServer(flow, Zone("zone.test", "".join(f"h{i} A 192.0.2.{i}\n" for i in range(10))))
    for entries, kept in ((0, 0), (4, 4), (100, 10)):
        daemon = Daemon(flow, name=str(entries), text=server.resolver(f"cache_entries = {entries}"))
        for i in range(10):
            expect_equal(dig(daemon, f"h{i}.zone.test"), [f"192.0.2.{i}"], "address")
        expect_equal(daemon.console("dns_cache", "stats")["answers_kept"], kept, f"answers with {entries}")


def test_uses_the_address_families_that_it_was_told(flow):
    server = NameServer(flow, Zone("zone.test", "a MX 10 m\nm A 127.0.0.1\nm AAAA ::1\n"))
    port = free_port()
    for family, wanted in (("any", [f"[::1]:{port}", f"127.0.0.1:{port}"]), ("ipv4", [f"127.0.0.1:{port}"]),
                           ("ipv6", [f"[::1]:{port}"])):
        daemon = Daemon(flow, name=family, text=f'remote_smtp_port = {port}\naddress_family = "{family}"\n'
                        + server.resolver())
        daemon.connect().mail("to@a.zone.test", body=HELLO)
        daemon.wait_lines("T", 1)
        hops = daemon.console("domain", "a.zone.test")["next_hops"]
        expect_equal([hop["address"] for hop in hops], wanted, f"next hops with {family}")


def test_refuses_tasks_above_the_backlog(flow):
    """A cache is made anew by the pool: one worker, which waits for a file, and one task that waits for it."""
    hosts = flow.path / "hosts"
    hosts.write_text("")
    daemon = Daemon(flow, extra_agents="agent pool { count = 1 backlog = 1 }",
                    text=f'resolver {{ hosts_file = "{hosts}" }}')
    hosts.unlink()
    os.mkfifo(hosts)
    command = [flow.program("flywheel"), "-s", daemon.control, "--json", "dns_cache", "flush"]
    flushes = []
    for count in (1, 2):
        flushes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        wait_until(lambda: daemon.counter("pool.queued") == count, f"{count} tasks at the pool")
    expect("too many tasks wait (pool backlog)" in daemon.console("dns_cache", "flush", fail=True), "it was not refused")
    expect_equal(daemon.counter("pool.refused"), 1, "tasks refused")
    for flush in flushes:
        # One reader at a time.
        hosts.write_text("192.0.2.5 late\n")
        out, errors = flush.communicate(timeout=60)
        expect_equal((flush.returncode, errors), (0, ""), f"end of a flush: {out}")


test_routes_mail_as_the_rfcs_ask.short = True
test_digs_and_remembers_until_told_to_forget.short = True
test_stops_at_once_while_names_are_looked_up.short = True
