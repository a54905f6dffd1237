"""Bindings: who sends what, from which address, under whose limits; who may choose, and what waits."""

import base64
import collections
import subprocess

from flow import Daemon, expect, expect_equal, free_port, wait_until
from peer import Peer

TWO = '''binding "a" { bind_address = "127.0.0.11" ehlo_hostname = "a.flow.test" }
binding "b" { bind_address = "127.0.0.12" ehlo_hostname = "b.flow.test" }
'''
# As test_extensions.py has them: of "open sesame".
SHA = "$6$saltsalt$e/5XKibXPLqVcfjpD.ouauaJrAOL5V0uo80Lt7n7EbRdRiCx3HbQ90yjOHr.G0T.mx79PEMRy8nmtr0qSYhQp1"
ADDRESSES = {"127.0.0.11": "a", "127.0.0.12": "b", "127.0.0.13": "c", "127.0.0.14": "house", "127.0.0.1": "default"}


class Watcher(Peer):
    """A next hop that remembers where each connection came from."""

    def __init__(self, flow, **replies):
        self.sources = {}
        super().__init__(flow, banner=self.greet, **replies)

    def greet(self, session):
        self.sources[session.number] = session.socket.getpeername()[0]
        return True

    def binding_of(self, mail):
        return ADDRESSES[self.sources[mail.connection]]

    def counts(self, mails):
        return dict(collections.Counter(self.binding_of(m) for m in mails))

    def greeting_of(self, mail):
        return [line for _, number, line in self.commands if number == mail.connection and line.startswith("EHLO")][0]


def message(binding=None, more="", body="hello\r\n"):
    field = f"X-Binding: {binding}\r\n" if binding is not None else ""
    return f"Subject: hello\r\n{field}{more}\r\n{body}"


def send(daemon, binding=None, to="to@good.test", client=None):
    code, text = (client or daemon.connect()).mail(to, body=message(binding))
    expect_equal(code, 250, f"reply ({text})")
    return text.split()[-1]


def logged(daemon, kind, count):
    """Group and binding by message id, of `count` lines."""
    at = {"R": 12, "D": 7, "T": 7, "P": 7}[kind]
    return {line[1]: tuple(line[at:at + 2]) for line in daemon.wait_lines(kind, count)}


def test_sends_from_the_address_and_by_the_name_of_the_binding(flow):
    peer = Watcher(flow)
    daemon = Daemon(flow, sink_port=peer.port, text=TWO)
    ids = {name: send(daemon, name) for name in ("a", "b", "default", None)}
    mails = peer.wait(4)
    expect_equal(peer.counts(mails), {"a": 1, "b": 1, "default": 2}, "addresses")
    for m in mails:
        name = peer.binding_of(m)
        expect_equal(peer.greeting_of(m), f"EHLO {name + '.' if name != 'default' else ''}flow.test", "greeting")
        expect(b"X-Binding" not in m.data, f"the field was delivered: {m.data}")
        expect(m.data.endswith(b"Subject: hello\r\n\r\nhello\r\n"), f"the message was changed: {m.data}")
    for kind in ("R", "D"):
        found = logged(daemon, kind, 4)
        for name, message_id in ids.items():
            expect_equal(found[message_id], ("default", name or "default"), f"group and binding in the {kind} line")


test_sends_from_the_address_and_by_the_name_of_the_binding.short = True
test_sends_from_the_address_and_by_the_name_of_the_binding.backends = ["uring", "epoll", "poll"]


GROUP = '''binding_group "promo" {
    binding "a" { weight = 3 bind_address = "127.0.0.11" }
    binding "b" { bind_address = "127.0.0.12" }
    binding "c" { weight = 2 bind_address = "127.0.0.13" }
}
'''


def test_gives_each_binding_of_a_group_its_share(flow):
    peer = Watcher(flow)
    daemon = Daemon(flow, sink_port=peer.port, schedulers=1, text=GROUP)
    client = daemon.connect()
    for _ in range(60):
        send(daemon, "promo", client=client)
    expect_equal(peer.counts(peer.wait(60)), {"a": 30, "b": 10, "c": 20}, "messages by address")
    daemon.wait_lines("D", 60)
    expect_equal({group for group, _ in logged(daemon, "D", 60).values()}, {"promo"}, "group")
    rows = {r["binding"]: r for r in daemon.console("bindings", "promo")["bindings"]}
    expect_equal({n: (r["weight"], r["received"], r["delivered"]) for n, r in rows.items()},
                 {"a": (3, 30, 30), "b": (1, 10, 10), "c": (2, 20, 20)}, "weight, received, delivered")


def test_passes_over_suspended_bindings(flow):
    peer = Watcher(flow)
    daemon = Daemon(flow, sink_port=peer.port, schedulers=1, text=GROUP.replace(
        "weight = 2", "weight = 2 suspend_delivery = true"))
    client = daemon.connect()
    for _ in range(8):
        send(daemon, "promo", client=client)
    expect_equal(peer.counts(peer.wait(8)), {"a": 6, "b": 2}, "without what the configuration suspends")
    daemon.console("suspend", "binding", "a")
    for _ in range(4):
        send(daemon, "promo", client=client)
    expect_equal(peer.counts(peer.wait(12)), {"a": 6, "b": 6}, "without what an operator suspends")
    daemon.console("suspend", "binding", "b")
    for _ in range(6):
        send(daemon, "promo", client=client)
    # By its name it is had as ever, and waits.
    send(daemon, "a", client=client)
    rows = {r["binding"]: r for r in daemon.console("bindings", "promo")["bindings"]}
    expect_equal({n: (r["state"], r["active"]) for n, r in rows.items()},
                 {"a": ("suspended", 4), "b": ("suspended", 1), "c": ("suspended", 2)}, "what waits")
    expect_equal(daemon.console("domain", "good.test", "b")["held_by"], "the binding is suspended", "held by")
    daemon.console("resume", "binding", "a")
    expect_equal(peer.counts(peer.wait(16)), {"a": 10, "b": 6}, "after one was resumed")
    daemon.console("resume", "binding", "b")
    daemon.console("resume", "binding", "c")
    expect_equal(peer.counts(peer.wait(19)), {"a": 10, "b": 7, "c": 2}, "after all were resumed")
    daemon.wait_for_rest()


def test_keeps_the_binding_through_restarts(flow):
    """A kill, a stop, and a configuration that has one of them no more."""
    peer = Watcher(flow)
    held = GROUP + "suspend_delivery = true\n"
    daemon = Daemon(flow, sink_port=peer.port, text='binding "default" { bind_address = "127.0.0.14" }\n' + held)
    ids = {send(daemon, name): name for name in ("a", "b", "c", "default") for _ in range(5)}
    daemon.kill()
    daemon.start()
    wait_until(lambda: daemon.queued() == 20, "all mail after a kill")
    expect_equal(daemon.terminate()[0], 0, "exit status")
    text = daemon.config.read_text()
    gone = text.replace(held, GROUP.replace('binding "c" { weight = 2 bind_address = "127.0.0.13" }', ""))
    expect(gone != text.replace("suspend_delivery = true\n", ""), "binding c is still configured")
    daemon.config.write_text(gone)
    daemon.start()
    mails = peer.wait(20)
    # What was c's goes by the options of the default one, and says whose it is.
    expect_equal(peer.counts(mails), {"a": 5, "b": 5, "house": 10}, "messages by address")
    found = logged(daemon, "D", 20)
    for message_id, name in ids.items():
        group = "promo" if name in "ab" else "default"
        expect_equal(found[message_id], (group, name), "group and binding in the D line")
    states = {r["binding"]: r["state"] for r in daemon.console("bindings")["bindings"]}
    expect_equal(states, {"default": "", "a": "", "b": "", "c": "not configured"}, "bindings")
    wait_until(lambda: any('of binding "c", which is not configured any more' in "@".join(line)
                           for line in daemon.lines(file="paniclog")), "a line in paniclog")


def test_sends_by_the_default_binding_what_names_none(flow):
    peer = Watcher(flow)
    daemon = Daemon(flow, sink_port=peer.port, text=TWO, schedulers=1)
    send(daemon, "nobody")
    send(daemon, "A")
    mails = peer.wait(2)
    expect_equal(peer.counts(mails), {"default": 2}, "messages by address")
    expect(not any(b"X-Binding" in m.data for m in mails), "the field was delivered")
    expect_equal(daemon.counter("scheduler.smtp_binding_unknown"), 2, "counter")
    texts = [e["error"] for e in daemon.console("errors")["errors"]]
    for name in ("nobody", "A"):
        expect(any(f'is for binding "{name}", which there is none of' in t for t in texts), f"errors: {texts}")


def test_header_listener_and_user_choose_in_this_order(flow):
    users = flow.path / "users"
    users.write_text(f"none:{SHA}\nuser:{SHA}:binding=b\n")
    peer = Watcher(flow)
    other = free_port()
    daemon = Daemon(flow, sink_port=peer.port, text=TWO, listener=f'''
        auth_file = "{users}" allow_plain_auth = true
        listen "127.0.0.1:{other}" {{ peer "127.0.0.0/8" {{ binding = "a" }} }}''')

    def client(port, user=None):
        c = daemon.connect()
        if port != daemon.port:
            c.close()
            daemon.port, saved = port, daemon.port
            c = daemon.connect()
            daemon.port = saved
        if user:
            c.say("EHLO client.test", 250)
            c.say("AUTH PLAIN " + base64.b64encode(f"\0{user}\0open sesame".encode()).decode(), 235)
        return c

    cases = [(daemon.port, None, None, "default"), (daemon.port, "none", None, "default"),
             (daemon.port, "user", None, "b"), (daemon.port, "user", "a", "a"),
             (other, None, None, "a"), (other, "user", None, "a"), (other, "user", "b", "b"),
             (other, None, "default", "default")]
    for i, (port, user, header, wanted) in enumerate(cases):
        send(daemon, header, client=client(port, user))
        mail = peer.wait(i + 1)[i]
        expect_equal(peer.binding_of(mail), wanted, f"binding of {cases[i]}")


def test_lets_only_trusted_clients_choose(flow):
    """Who may send to our domains only does not choose, and his field stays; nor does anybody where it is off."""
    peer = Watcher(flow)
    off, renamed = free_port(), free_port()
    daemon = Daemon(flow, sink_port=peer.port, text=TWO, listener=f'''
        peer "127.0.0.2/32" {{ relay_hosts = ( ) relay_domains = ( "good.test" ) }}
        listen "127.0.0.1:{off}" {{ binding_header = "" }}
        listen "127.0.0.1:{renamed}" {{ binding_header = "X-Way" }}''')
    send(daemon, "a", client=daemon.connect(source="127.0.0.2"))
    port = daemon.port
    for daemon.port in (off, renamed):
        send(daemon, "a")
    expect_equal(daemon.connect().mail("to@good.test", body=message(None, "X-Way: b\r\n"))[0], 250, "reply")
    daemon.port = port
    mails = peer.wait(4)
    expect_equal(peer.counts(mails), {"default": 3, "b": 1}, "messages by address")
    expect_equal(sum(b"X-Binding: a\r\n" in m.data for m in mails), 3, "messages that keep the field")
    expect_equal(sum(b"X-Way" in m.data for m in mails), 0, "messages with the field that is obeyed")


def test_limits_and_counts_hold_for_each_binding(flow):
    """Connections, throttles and statistics of (binding, domain)."""
    peer = Watcher(flow)
    daemon = Daemon(flow, sink_port=peer.port, text=TWO.replace(
        'ehlo_hostname = "a.flow.test"', "max_outbound_connections = 2").replace(
        'ehlo_hostname = "b.flow.test"', 'outbound_throttle_messages = "1/3600"'))
    daemon.console("suspend", "domain", "good.test")
    for name in ("a", "b", "default"):
        for _ in range(10):
            send(daemon, name)
    shown = daemon.console("domain", "good.test")["bindings"]
    expect_equal({d["binding"]: d["queue"]["active"] for d in shown}, {"a": 10, "b": 10, "default": 10}, "queues")
    daemon.console("resume", "domain", "good.test", "a")
    expect_equal(peer.counts(peer.wait(10)), {"a": 10}, "after one was resumed")
    opened = [n for n, source in peer.sources.items() if ADDRESSES[source] == "a"]
    expect(len(opened) <= 2, f"{len(opened)} connections of a")
    daemon.console("resume", "domain", "good.test")
    peer.wait(21)
    wait_until(lambda: daemon.console("domain", "good.test", "b")["held_by"] == "outbound_throttle_messages",
               "the throttle of b")
    expect_equal(peer.counts(peer.mails), {"a": 10, "b": 1, "default": 10}, "messages by address")
    daemon.wait_lines("D", 21)
    delivered = {d["binding"]: d["counters"]["delivered"] for d in daemon.console("domain", "good.test")["bindings"]}
    expect_equal(delivered, {"a": 10, "b": 1, "default": 10}, "delivered")
    expect_equal(daemon.console("domain", "good.test", "a")["counters"]["most_connections"] <= 2, True, "connections")


def test_waits_for_an_address_that_the_machine_has_not(flow):
    peer = Watcher(flow)
    text = '''binding "a" { bind_address = "192.0.2.1" } binding "b" { bind_address = "127.0.0.12" }
binding "v6" { bind_address = "::1" }
host_failure_retry = "1h"
'''
    daemon = Daemon(flow, sink_port=peer.port, text=text)
    done = subprocess.run([flow.program("flywheeld"), "--config", daemon.config, "--check"], capture_output=True,
                          text=True, timeout=60)
    expect("192.0.2.1" in done.stderr and "cannot be used on this machine" in done.stderr and done.returncode == 0,
           f"--check says {done.stderr}")
    for name in ("a", "a", "b", "v6"):
        send(daemon, name)
    expect_equal(peer.counts(peer.wait(1)), {"b": 1}, "messages by address")
    lines = {line[8]: line[-1] for line in daemon.wait_lines("T", 2)}
    expect_equal(lines, {
        "a": "451 4.3.5 [internal] bind_address 192.0.2.1 of binding a cannot be used: Cannot assign requested address",
        "v6": "451 4.3.5 [internal] binding v6 has no bind_address of the family of any next hop, only ::1",
    }, "T lines")
    shown = daemon.console("domain", "good.test", "a")
    expect("bind_address" in shown["held_by"] and "192.0.2.1" in shown["reason"], f"console: {shown}")
    # One has been told, the other one waits.
    expect_equal((shown["queue"]["active"], shown["queue"]["delayed"]), (1, 1), "queue")
    hops = daemon.console("domain", "good.test", "v6")["next_hops"]
    expect_equal(hops[0]["state"], "left out, no bind_address of its family", "next hop")
    expect(daemon.counter("scheduler.outbound.bind_failed") >= 2, "the counter")
    # An operator who has mended it asks for another try.
    daemon.terminate()
    daemon.config.write_text(daemon.config.read_text().replace("192.0.2.1", "127.0.0.11"))
    daemon.start()
    wait_until(lambda: daemon.console("binding", "a")["delayed"] == 1, "the delayed message after the start")
    daemon.console("flush", "binding", "a")
    expect_equal(peer.counts(peer.wait(3)), {"a": 2, "b": 1}, "messages by address")


def test_bounces_go_by_the_default_binding(flow):
    """A sender's mistakes are none of a binding's: and the B line says by which one it was sent."""
    home = Watcher(flow)
    peer = Watcher(flow, rcpt="550 5.1.1 nobody")
    daemon = Daemon(flow, sink_port=peer.port,
                    text=TWO + f'''domain "sender.test" {{ gateway = "127.0.0.1:{home.port}" }}
binding_group "house" {{ binding "default" {{ }} }}''')
    message_id = send(daemon, "a")
    expect_equal(home.counts(home.wait(1)), {"default": 1}, "notice by address")
    expect_equal(logged(daemon, "P", 1)[message_id], ("default", "a"), "P line")
    for line in daemon.wait_lines("R", 2):
        wanted = ["internal", "house", "default"] if line[1] != message_id else ["esmtp", "default", "a"]
        expect_equal(line[11:14], wanted, "protocol, group and binding in the R line")
    expect_equal(list(logged(daemon, "D", 1).values()), [("house", "default")], "D line of the notice")
    wait_until(lambda: daemon.lines("B", file="bouncelog"), "a line in the bouncelog")
    line = daemon.lines("B", file="bouncelog")[0]
    expect_equal(line[9:11], ["default", "a"], "group and binding in the B line")


def test_orders_reach_one_binding(flow):
    peer = Watcher(flow, rcpt=lambda s: "450 4.2.1 later" if s.rcpt.startswith("later") else True)
    daemon = Daemon(flow, sink_port=peer.port, text=TWO + 'retry_interval = "1h"')
    for name in ("a", "b"):
        send(daemon, name, to="later@good.test")
    daemon.wait_lines("T", 2)
    wait_until(lambda: daemon.console("summary")["delayed_queue_size"] == 2, "two delayed messages")
    daemon.console("flush", "binding", "a")
    found = daemon.wait_lines("T", 3)
    expect_equal([line[8] for line in found[2:]], ["a"], "binding of the third T line")
    wait_until(lambda: daemon.console("summary")["delayed_queue_size"] == 2, "two delayed messages")
    expect_equal(daemon.console("fail", "binding", "b", "quiet")["messages_failed"], 1, "failed")
    expect_equal([line[8] for line in daemon.wait_lines("P", 1)], ["b"], "binding of the P line")
    expect_equal(daemon.console("fail", "domain", "good.test", "a", "quiet")["messages_failed"], 1, "failed")
    daemon.wait_for_rest()
