"""Sites: domains of one MX set, or one provider, share connections and limits; each record is where its site is."""

from flow import Daemon, expect, expect_equal, wait_until
from names import RecordServer
from peer import Peer

HELLO = "Subject: hello\r\n\r\nHello\r\n"


class Setup:
    """`sets` maps a domain to its exchangers; each exchanger is a receiver at an address of its own, all on one
    port, and hosts() names the receiver of each."""

    def __init__(self, flow, sets, text, **options):
        self.flow = flow
        hosts = sorted({host for exchangers in sets.values() for _, host in exchangers})
        self.peers = {}
        for number, host in enumerate(hosts):
            port = next(iter(self.peers.values())).port if self.peers else 0
            self.peers[host] = Peer(flow, port, f"127.0.9.{number + 1}")
        self.server = RecordServer(flow, dict(sets), {h: f"127.0.9.{n + 1}" for n, h in enumerate(hosts)})
        port = self.peers[hosts[0]].port
        # On a machine that halts for seconds a look-up may fail: mail that waits for the next one is not lost to the test.
        self.daemon = Daemon(flow, text=f'{self.server.resolver()}remote_smtp_port = {port}\naddress_family = ipv4\n'
                             f'retry_interval = "1s" max_retry_interval = "1h"\n'
                             f'idle_timeout = "60s"\nhost_failure_retry = "1s"\ntls = no\n{text}', **options)

    def send(self, domains, count=1):
        """So many messages to each domain, all in one session."""
        client = self.daemon.connect()
        for number in range(count):
            for domain in domains:
                code, reply = client.mail(f"to{number}@{domain}", body=HELLO)
                expect_equal(code, 250, f"reply ({reply})")

    def recipients(self, host):
        return sorted(r for mail in list(self.peers[host].mails) for r in mail.recipients)


def note_transactions(peer, domain, gate):
    """How many of the domain's were under way at a time, with each that began; they end when there is something in
    `gate`."""
    busy, most = set(), []

    def begin(session):
        busy.add(session.number) if session.rcpt.endswith(domain) else busy.discard(session.number)
        most.append(len(busy))
        return True

    def end(session):
        wait_until(lambda: gate, "the test")
        busy.discard(session.number)
        return True

    peer.replies.update(rcpt=begin, dot=end)
    return most


def domains(count, prefix="d"):
    return [f"{prefix}{i}.test" for i in range(count)]


def test_fifty_domains_of_one_mx_set_share_three_connections(flow):
    names = domains(50)
    s = Setup(flow, {n: [(10, "mx1.one.test")] for n in names}, "max_outbound_connections = 3\n", schedulers=4)
    s.send(names, 4)
    s.peers["mx1.one.test"].wait(200)
    expect_equal(s.recipients("mx1.one.test"), sorted(f"to{i}@{n}" for i in range(4) for n in names), "recipients")
    expect(s.peers["mx1.one.test"].peak <= 3, f"{s.peers['mx1.one.test'].peak} connections at a time")
    s.daemon.wait_lines("D", 200)
    shown = s.daemon.console("sites")
    rows = [(r["site"], r["domains"], r["limit"]) for r in shown["sites"]]
    expect_equal(rows, [("mx 10 mx1.one.test", 50, 3)], "sites")
    # Each record is where the site is, and those that did not begin there have moved.
    home = shown["sites"][0]["home"]
    homes = {s.daemon.console("domain", n)["home"] for n in names}
    expect_equal(homes, {home}, "homes of the records")
    expect(0 < s.daemon.counter("scheduler.outbound.moves") < 50, "records that moved")
    expect_equal(s.daemon.console("site", "mx1.one.test")["sites"][0]["delivered"], 200, "delivered of the site")


def test_two_mx_sets_have_limits_of_their_own(flow):
    one, two = domains(5, "one"), domains(5, "two")
    sets = {n: [(10, "mx.one.test")] for n in one} | {n: [(10, "mx.two.test")] for n in two}
    s = Setup(flow, sets, "max_outbound_connections = 2\n")
    gate = []
    for peer in s.peers.values():
        # Nobody gets an answer until both are full.
        peer.replies["dot"] = lambda session: wait_until(lambda: gate, "the test") and "250 taken"
    s.send(one + two, 3)
    for peer in s.peers.values():
        wait_until(lambda peer=peer: len(peer.said("DATA")) == 2, "two connections at work")
    totals = {"sites": 2, "domains": 10, "connections": 4}
    wait_until(lambda: s.daemon.console("sites")["totals"] == totals, f"the totals {totals}")
    gate.append(True)
    for peer in s.peers.values():
        peer.wait(15)
        expect(peer.peak <= 2, f"{peer.peak} connections to one set")


def test_a_providers_sets_are_one_site(flow):
    sets = {n: [(10, f"mx{i % 4}.big.test")] for i, n in enumerate(domains(12))} | {"other.test": [(10, "mx.other.test")]}
    s = Setup(flow, sets, 'provider "big" { mx_suffix = ".big.test" max_outbound_connections = 2 }\n', schedulers=3)
    s.server.ttl = 3600
    open_now, most = set(), []

    def note(session):
        # Connections of all receivers of the provider.
        most.append(sum(len(p.open) for h, p in s.peers.items() if h.endswith(".big.test")))
        open_now.add(session.number)
        return True

    for peer in s.peers.values():
        peer.replies["mail"] = note
    s.send([*domains(12), "other.test"], 5)
    for i in range(4):
        peer = s.peers[f"mx{i}.big.test"]
        peer.wait(15)
        # Each lane goes to its own exchanger.
        expect_equal({r.split("@")[1] for r in s.recipients(f"mx{i}.big.test")},
                     {n for n, m in sets.items() if m[0][1] == f"mx{i}.big.test"}, f"domains of mx{i}")
    s.peers["mx.other.test"].wait(5)
    expect(most and max(most) <= 2, f"{max(most)} connections to the provider")
    site = s.daemon.console("site", "big")["sites"][0]
    expect_equal((site["site"], site["limit"], site["domains"], len(site["lanes"])), ("provider big", 2, 12, 4), "site")
    expect_equal(s.daemon.console("domain", "other.test")["site"], "mx 10 mx.other.test", "the other's site")
    # Whose it is when the configuration says so, though the name service's answer is good for long.
    s.daemon.console("config", "set", "provider", "big", "mx_suffix", "(.big.test .other.test)")
    s.send(["other.test"])
    wait_until(lambda: s.daemon.console("domain", "other.test")["site"] == "provider big", "the provider's site")


def test_a_domain_may_be_alone(flow):
    """mx_rollup = false, and a limit of its own within that of the site."""
    names = domains(6)
    text = ('max_outbound_connections = 1\n'
            f'domain "{names[0]}" {{ mx_rollup = false }}\n')
    s = Setup(flow, {n: [(10, "mx.one.test")] for n in names}, text)
    peer, gate = s.peers["mx.one.test"], []
    peer.replies["dot"] = lambda session: wait_until(lambda: gate, "the test") and "250 taken"
    s.send(names, 2)
    # One for the domain that is alone, one for the others.
    wait_until(lambda: len(peer.said("DATA")) == 2, "two connections at work")
    keys = {names[0]: f"domain {names[0]}", names[1]: "mx 10 mx.one.test"}
    wait_until(lambda: keys == {n: s.daemon.console("domain", n)["site"] for n in keys}, f"the sites {keys}")
    gate.append(True)
    peer.wait(12)
    expect_equal(peer.peak, 2, "connections at a time")


def test_ten_domains_behind_a_gateway_share_three_connections(flow):
    """And one that is suspended holds nobody; a narrower limit of a domain's own holds; why and site tell of it."""
    names, peer, gate = domains(10), Peer(flow), []
    most = note_transactions(peer, names[0], gate)
    daemon = Daemon(flow, sink_port=peer.port, schedulers=1, text='max_outbound_connections = 3\nidle_timeout = "60s"\n'
                    f'domain "{names[0]}" {{ max_outbound_connections = 1 }}\n')
    daemon.console("suspend", "domain", names[1])
    client = daemon.connect()
    # First of all what may have one connection only.
    for name in names:
        for number in range(4):
            client.mail(f"to{number}@{name}", body=HELLO)
    wait_until(lambda: len(peer.said("DATA")) == 3, "three connections at work")
    key = f"gateway 10 127.0.0.1:{peer.port}"
    # The record of the one that is suspended has not looked where its mail would go.
    full = (key, 9, 3, 3, "max_outbound_connections")
    wait_until(lambda: [(r["site"], r["domains"], r["connections"], r["limit"], r["held_by"])
                        for r in daemon.console("sites")["sites"]] == [full], f"the site {full}")
    expect_equal([r["site"] for r in daemon.console("site", names[5])["sites"]], [key], "site of a domain")
    expect_equal([r["site"] for r in daemon.console("site", f"127.0.0.1:{peer.port}")["sites"]], [key], "site of the gateway")
    reason = daemon.console("why", "domain", names[9])["reasons"][0]
    expect_equal((reason["reason"], reason["of"], reason["limit"], reason["set_by"]),
                 ("max_outbound_connections", "site", 3, "the global scope"), "why")
    expect(f'to its site "{key}" of 9 domains' in reason["what"], reason["what"])
    gate.append(True)
    peer.wait(36)
    daemon.wait_lines("D", 36)
    expect_equal((peer.peak, max(most)), (3, 1), "connections at a time, and transactions of the first domain")
    expect_equal(daemon.console("domain", names[1])["queue"]["active"], 4, "mail of the one that is suspended")
    daemon.console("resume", "domain", names[1])
    peer.wait(40)
    expect_equal(peer.peak, 3, "connections at a time")
    expect_equal(sorted(r for mail in peer.mails for r in mail.recipients),
                 sorted(f"to{i}@{n}" for i in range(4) for n in names), "recipients")


def test_each_scheduler_keeps_connections_to_a_gateway_of_its_own(flow):
    """Records of domains stay where they are; a gateway in a domain's stanza is that domain's alone."""
    names, peer = domains(12), Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, schedulers=3, text='max_outbound_connections = 2\nidle_timeout = "60s"\n'
                    f'domain "own.test" {{ gateway = "localhost:{peer.port}" }}\n')
    client = daemon.connect()
    for number in range(5):
        for name in [*names, "own.test"]:
            client.mail(f"to{number}@{name}", body=HELLO)
    peer.wait(65)
    daemon.wait_lines("D", 65)
    key = f"gateway 10 127.0.0.1:{peer.port}"
    rows = [r for r in daemon.console("sites")["sites"] if r["site"] == key]
    expect(1 < len(rows) <= 3 and len({r["home"] for r in rows}) == len(rows), f"a site on each scheduler: {rows}")
    expect_equal(sum(r["domains"] for r in rows), 12, "domains")
    expect_equal(daemon.console("domain", "own.test")["site"], "domain own.test", "site of the one with its own")
    expect(peer.peak <= 3 * 2 + 2, f"{peer.peak} connections")
    expect_equal(daemon.counter("scheduler.outbound.moves"), 0, "records that moved")


def test_a_domain_has_its_own_limit_within_the_sites(flow):
    names = domains(4)
    text = f'max_outbound_connections = 4\ndomain "{names[0]}" {{ max_outbound_connections = 1 }}\n'
    s = Setup(flow, {n: [(10, "mx.one.test")] for n in names}, text)
    peer, gate = s.peers["mx.one.test"], []
    most = note_transactions(peer, names[0], gate)
    s.send(names[:1], 10)
    s.send(names[1:], 10)
    wait_until(lambda: len(peer.said("DATA")) == 4, "four connections at work")
    gate.append(True)
    peer.wait(40)
    expect_equal(max(most), 1, "transactions of that domain at a time")
    expect(peer.peak <= 4, f"{peer.peak} connections")


def test_mail_follows_a_domain_whose_mx_set_changes(flow):
    """Nothing is lost or sent twice while records move to and fro."""
    names = domains(8)
    sets = [[(10, f"mx{i}.set.test")] for i in range(5)]
    s = Setup(flow, {n: sets[0] for n in names} | {f"x{i}.test": m for i, m in enumerate(sets)},
              "max_outbound_connections = 2\n", schedulers=4)
    sent = 0
    for number in range(20):
        for i, name in enumerate(names):
            s.server.exchangers[name] = sets[(number // 2 + i) % len(sets)]
        s.send(names, 5)
        sent += 5 * len(names)
        # Time for answers to run out.
        s.daemon.console("dns_cache", "flush")
        wait_until(lambda: sum(len(p.mails) for p in s.peers.values()) >= sent, f"{sent} messages at the peers")
    taken = sorted(r for h in s.peers for r in s.recipients(h))
    expect_equal(taken, sorted(f"to{i}@{n}" for i in range(5) for n in names for _ in range(20)), "recipients")
    moves = s.daemon.counter("scheduler.outbound.moves")
    expect(moves > len(names), f"{moves} moves")
    expect(s.daemon.counter("scheduler.outbound.forwarded") > 0, "nothing was forwarded")
    s.daemon.wait_for_rest()


def test_orders_find_a_record_that_has_moved(flow):
    """And a suspension moves with it."""
    names = domains(8)
    s = Setup(flow, {n: [(10, "mx0.set.test")] for n in names} | {"x.test": [(10, "mx1.set.test")]}, "", schedulers=4)
    s.send(names)
    s.peers["mx0.set.test"].wait(8)
    s.daemon.wait_lines("D", 8)
    expect(s.daemon.counter("scheduler.outbound.moves") > 0, "no record has moved")
    for name in names:
        expect_equal(s.daemon.console("suspend", "domain", name)["state"], "suspended", name)
    s.send(names)
    for name in names:
        wait_until(lambda name=name: s.daemon.console("domain", name)["queue"]["active"] == 1, f"mail of {name}")
    rows = {r["domain"]: r["held_by"] for r in s.daemon.console("mailq")["queues"]}
    expect_equal(rows, {n: "suspended" for n in names}, "mailq")
    expect_equal(s.daemon.console("fail", "domain", names[0], "quiet")["messages_failed"], 1, "failed")
    for name in names[1:]:
        s.daemon.console("resume", "domain", name)
    s.peers["mx0.set.test"].wait(15)
    s.daemon.wait_lines("D", 15)
    s.daemon.wait_lines("P", 1)
    expect_equal(len(s.peers["mx0.set.test"].mails), 15, "messages at the peer")


def test_mail_that_waits_at_another_home_survives_a_kill(flow):
    names = domains(8)
    s = Setup(flow, {n: [(10, "mx0.set.test")] for n in names}, 'retry_interval = "1h"\n', schedulers=4)
    peer = s.peers["mx0.set.test"]
    peer.replies["rcpt"] = "450 4.2.1 later"
    s.send(names, 3)
    s.daemon.wait_lines("T", 24)
    expect(s.daemon.counter("scheduler.outbound.moves") > 0, "no record has moved")
    s.daemon.kill()
    peer.replies.clear()
    s.daemon.start()
    wait_until(lambda: s.daemon.queued() == 24, "24 messages recovered")
    for name in names:
        s.daemon.console("flush", "domain", name)
    peer.wait(24)
    expect_equal(s.recipients("mx0.set.test"), sorted(f"to{i}@{n}" for i in range(3) for n in names), "recipients")
