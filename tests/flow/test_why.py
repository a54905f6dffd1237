"""Why is it not moving? Arranged situations, and what `why` says of each: the reason, the limit and who set it, and
when it goes on, which is compared with what then happens."""

import calendar
import json
import subprocess
import threading
import time

from certificates import Certificates
from flow import PATIENCE, Daemon, Failure, Sink, expect, expect_equal, free_port, wait_until
from names import NameServer, RecordServer, SilentServer, Zone
from peer import Peer

HELLO = "Subject: hello\r\n\r\nHello\r\n"
KIB = 1 << 10


class Gate:
    """A stage at which sessions wait until the test lets them go on."""

    def __init__(self):
        self.opened = threading.Event()

    def __call__(self, session):
        self.opened.wait(PATIENCE)
        return True

    def open(self):
        self.opened.set()


def send(daemon, domain, count=1, binding=None, body="Hello\r\n"):
    """Ids of so many messages, sent in one session."""
    client = daemon.connect()
    field = f"X-Binding: {binding}\r\n" if binding else ""
    ids = []
    for number in range(count):
        code, reply = client.mail(f"to{number}@{domain}", body=f"Subject: hello\r\n{field}\r\n{body}")
        expect_equal(code, 250, f"reply ({reply})")
        ids.append(reply.split()[-1])
    client.close()
    return ids


def ask(daemon, domain, *binding):
    """None as long as there is no record of it."""
    try:
        return daemon.console("why", "domain", domain, *binding)
    except Failure:
        return None


def why(daemon, domain, reason, *binding, until=lambda v: True):
    """The explanation, when its first reason is that one. `domain` has to say the same."""
    v = wait_until(lambda: (v := ask(daemon, domain, *binding)) and v["reason"] == reason and until(v) and v,
                   f"{reason} to hold {domain}")
    for row in v["reasons"]:
        expect(row["what"], f"no words for {row}")
    expect(v["why"].startswith(domain), f"the sentence is {v['why']}")
    return v


def row(v, reason, of=None):
    found = [r for r in v["reasons"] if r["reason"] == reason and of in (None, r["of"])]
    expect_equal(len(found), 1, f"rows of {reason} in {json.dumps(v['reasons'], indent=1)}")
    return found[0]


def line_of(daemon, text):
    """FILE:LINE of the only line of the configuration that has these words."""
    lines = daemon.config.read_text().splitlines()
    at = [n for n, line in enumerate(lines, 1) if text in line]
    expect_equal(len(at), 1, f"lines with {text!r}")
    return f"{daemon.config}:{at[0]}"


def seconds_of(moment):
    return calendar.timegm(time.strptime(moment, "%Y-%m-%dT%H:%M:%SZ"))


def expect_not_before(daemon, moment, kind, count):
    """The last of `count` lines of that kind is not older than that moment."""
    newest = max(int(float(line[0])) for line in daemon.wait_lines(kind, count))
    expect(newest >= seconds_of(moment), f"{kind} at {newest}, but {moment} was told")


# ---- throttles ----


def test_a_message_throttle_and_its_next_slot(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, text=f'''domain "slow.test" {{
    gateway = "127.0.0.1:{peer.port}"
    outbound_throttle_messages = "12/min"
}}''')
    send(daemon, "slow.test", 8)
    peer.wait(1)
    v = why(daemon, "slow.test", "outbound_throttle_messages")
    r, waiting = v["reasons"][0], v["active"]
    expect_equal((r["limit"], r["per_period_s"], r["value"]), (12, 60, "12/60"), "the limit")
    expect_equal((r["set_at"], r["set_by"]), (line_of(daemon, "outbound_throttle_messages"), 'domain "slow.test"'), "who set it")
    # One each five seconds: the next one is not further away, nor is the last one further than one for each.
    expect(0 < r["next_in_ms"] <= 5000, f"next slot in {r['next_in_ms']} ms")
    expect(5 * (waiting - 1) < v["drain"]["in_s"] <= 5 * waiting, f"drain of {waiting}: {v['drain']}")
    expect("at the limit of 12/60" in v["drain"]["assumption"], f"drain: {v['drain']}")
    expect(f"slow.test: {waiting} messages wait for outbound_throttle_messages = 12/60 ({r['set_at']}), next slot in" in v["why"],
           v["why"])
    expect_not_before(daemon, v["next_attempt_at"], "D", 8 - waiting + 1)


test_a_message_throttle_and_its_next_slot.short = True


def test_a_connection_throttle(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text='''max_deliveries_per_connection = 1
outbound_throttle_connections = "12/min"''')
    send(daemon, "slow.test", 8)
    # When no connection is open or being opened, so that the next message goes on the next one.
    v = why(daemon, "slow.test", "outbound_throttle_connections", until=lambda v: v["on_connections"] == 0 and
            "opening" not in [r["reason"] for r in v["reasons"]] and v["active"] + len(daemon.lines("D")) == 8)
    r = v["reasons"][0]
    expect_equal((r["limit"], r["per_period_s"], r["set_at"], r["set_by"]),
                 (12, 60, line_of(daemon, "outbound_throttle_connections"), "the global scope"), "limit and who set it")
    expect(0 < r["next_in_ms"] <= 5000, f"next slot in {r['next_in_ms']} ms")
    expect_not_before(daemon, r["next_at"], "D", 8 - v["active"] + 1)


# ---- connections ----


def test_connections_of_a_domain(flow):
    gate = Gate()
    peer = Peer(flow, dot=gate)
    daemon = Daemon(flow, text=f'''domain "busy.test" {{ gateway = "127.0.0.1:{peer.port}"
max_outbound_connections = 2 }}''')
    send(daemon, "busy.test", 5)
    v = why(daemon, "busy.test", "max_outbound_connections", until=lambda v: v["on_connections"] == 2)
    r = v["reasons"][0]
    expect_equal((r["in_use"], r["limit"], r["set_at"], r["set_by"]),
                 (2, 2, line_of(daemon, "max_outbound_connections"), 'domain "busy.test"'), "limit and who set it")
    expect("next_in_ms" not in r and v["next_attempt_at"] is None, "a time that nobody can know")
    expect_equal(v["why"].split(";")[0], f"busy.test: 3 messages wait for max_outbound_connections = 2 ({r['set_at']}), "
                 "both in use", "the sentence")
    expect_equal(r["what_changes_it"], 'max_outbound_connections in domain "busy.test"', "what changes it")
    shown = daemon.console("domain", "busy.test")
    expect_equal((shown["held_by"], shown["state"], shown["reason"]),
                 ("max_outbound_connections", "sending at its limit", r["what"]), "what domain says")
    gate.open()
    peer.wait(5)
    daemon.wait_lines("D", 5)
    v = why(daemon, "busy.test", "nothing", until=lambda v: v["on_connections"] == 0)
    expect(v["last_minute_per_s"] > 0, f"no rate after five deliveries: {v}")


def test_connections_of_a_binding_decide_over_those_of_the_domain(flow):
    gate = Gate()
    peer = Peer(flow, dot=gate)
    daemon = Daemon(flow, text=f'''max_outbound_connections = 9
domain "busy.test" {{ gateway = "127.0.0.1:{peer.port}"
max_outbound_connections = 2 }}
binding_group "g" {{ binding "a" {{
domain "busy.test" {{ max_outbound_connections = 1 }} }} }}
binding "b" {{ max_outbound_connections = 3 }}''')
    for binding in ("a", "b"):
        send(daemon, "busy.test", 4, binding)
    v = why(daemon, "busy.test", "max_outbound_connections", "a", until=lambda v: v["on_connections"] == 1)
    r = v["reasons"][0]
    expect_equal((r["in_use"], r["limit"], r["set_at"], r["set_by"]),
                 (1, 1, line_of(daemon, "max_outbound_connections = 1"),
                  'domain "busy.test" in binding "a" in binding_group "g"'), "limit and who set it, of a")
    v = why(daemon, "busy.test", "max_outbound_connections", "b", until=lambda v: v["on_connections"] == 2)
    r = v["reasons"][0]
    expect_equal((r["in_use"], r["limit"], r["set_at"], r["set_by"]),
                 (2, 2, line_of(daemon, "max_outbound_connections = 2"), 'domain "busy.test"'), "limit and who set it, of b")
    expect(v["why"].startswith("busy.test by b: 2 messages wait for"), v["why"])
    # Each by itself, and both.
    both = daemon.console("why", "domain", "busy.test")["bindings"]
    expect_equal(sorted(v["binding"] for v in both), ["a", "b"], "bindings")
    gate.open()
    peer.wait(8)


class Exchangers:
    """A peer, and a daemon that finds it as the exchanger of all of `names`."""

    def __init__(self, flow, names, host, text, **replies):
        self.peer = Peer(flow, host="127.0.9.1", **replies)
        server = RecordServer(flow, {n: [(10, host)] for n in names}, {host: "127.0.9.1"}, ttl=3600)
        resolver = server.resolver('timeout = "60s"')
        # A look-up may fail on a machine that halts for seconds: it is made again soon.
        self.daemon = Daemon(flow, text=f"{resolver}remote_smtp_port = {self.peer.port}\naddress_family = ipv4\n"
                             f'tls = no\nretry_interval = "1s"\nhost_failure_retry = "1s"\n{text}')


def test_connections_that_domains_of_one_site_share(flow):
    gate = Gate()
    s = Exchangers(flow, ["one.test", "two.test"], "mx.shared.test", "max_outbound_connections = 2", dot=gate)
    send(s.daemon, "one.test", 4)
    why(s.daemon, "one.test", "max_outbound_connections")
    send(s.daemon, "two.test", 1)
    v = why(s.daemon, "two.test", "max_outbound_connections", until=lambda v: v["active"] == 1)
    r = v["reasons"][0]
    expect_equal((r["of"], r["in_use"], r["limit"], r["set_at"], r["set_by"]),
                 ("site", 2, 2, line_of(s.daemon, "max_outbound_connections"), "the global scope"), "the limit of the site")
    expect('to its site "mx 10 mx.shared.test" of 2 domains' in r["what"], r["what"])
    expect('mx_rollup = false in domain "two.test"' in r["what_changes_it"], r["what_changes_it"])
    expect_equal((v["active"], v["on_connections"]), (1, 0), "two.test")
    gate.open()
    s.peer.wait(5)


def test_connections_of_a_provider_and_the_narrower_ones_of_a_domain(flow):
    gate = Gate()
    s = Exchangers(flow, ["one.test", "two.test"], "mx.big.test", '''max_outbound_connections = 7
provider "big" { mx_suffix = ".big.test"
max_outbound_connections = 2 }
domain "two.test" { max_outbound_connections = 1 }''', dot=gate)
    send(s.daemon, "two.test", 3)
    r = why(s.daemon, "two.test", "max_outbound_connections", until=lambda v: v["on_connections"] == 1)["reasons"]
    expect_equal([(x["of"], x["limit"], x["set_at"], x["set_by"]) for x in r],
                 [("domain", 1, line_of(s.daemon, "max_outbound_connections = 1"), 'domain "two.test"')], "of the domain")
    send(s.daemon, "one.test", 3)
    r = why(s.daemon, "one.test", "max_outbound_connections")["reasons"][0]
    expect_equal((r["of"], r["limit"], r["set_at"], r["set_by"]),
                 ("site", 2, line_of(s.daemon, "max_outbound_connections = 2"), 'provider "big"'), "of the provider")
    expect_equal(r["what_changes_it"], 'max_outbound_connections in provider "big"', "what changes it")
    # Now both hold two.test.
    both = [("domain", 1), ("site", 2)]
    why(s.daemon, "two.test", "max_outbound_connections", until=lambda v: both == sorted(
        (x["of"], x["limit"]) for x in v["reasons"] if x["reason"] == "max_outbound_connections"))
    gate.open()
    s.peer.wait(6)


def test_connections_of_the_whole_program(flow):
    gate = Gate()
    peer = Peer(flow, dot=gate)
    daemon = Daemon(flow, text=f'''server_max_outbound_connections = 1
domain "one.test" {{ gateway = "127.0.0.1:{peer.port}" }}
domain "two.test" {{ gateway = "127.0.0.1:{peer.port}" }}''')
    send(daemon, "one.test")
    wait_until(lambda: peer.said("DATA"), "the one connection to be busy")
    send(daemon, "two.test")
    v = why(daemon, "two.test", "server_max_outbound_connections")
    r = v["reasons"][0]
    expect_equal((r["of"], r["in_use"], r["limit"], r["set_at"], r["set_by"]),
                 ("program", 1, 1, line_of(daemon, "server_max_outbound_connections"), "the global scope"), "the limit")
    gate.open()
    peer.wait(2)


def test_connections_that_the_peer_allows(flow):
    """The second one is refused while the first one works."""
    gate = Gate()
    peer = Peer(flow, banner=lambda s: "421 too many" if s.number > 1 else "220 peer.test",
                dot=gate)
    daemon = Daemon(flow, text=f'''domain "strict.test" {{ gateway = "127.0.0.1:{peer.port}"
host_failure_retry = "1h" }}''')
    send(daemon, "strict.test", 3)
    v = why(daemon, "strict.test", "peer_limit")
    r = v["reasons"][0]
    expect_equal((r["value"], r["set_at"]), ("1h", line_of(daemon, "host_failure_retry")), "the option")
    expect("421 too many" in r["what"] and "1 goes on" in r["what"], r["what"])
    expect("421 too many" in v["next_hops"][0]["last_error"], f"{v['next_hops']}")
    expect(0 < r["next_in_ms"] <= 3600000, f"tried again in {r['next_in_ms']} ms")
    gate.open()
    # The one goes on with the rest, long before others are tried again.
    peer.wait(3)


def test_a_connection_that_is_being_opened(flow):
    gate = Gate()
    peer = Peer(flow, banner=gate)
    daemon = Daemon(flow, sink_port=peer.port)
    send(daemon, "new.test", 2)
    v = why(daemon, "new.test", "opening", until=lambda v: v["active"] == 2)
    expect_equal((v["reasons"][0]["count"], v["reasons"][0]["holds"]), (1, False), "what is being opened")
    expect_equal("held_by" in daemon.console("domain", "new.test"), False, "held")
    gate.open()
    peer.wait(2)


# ---- orders ----


def test_an_operators_suspension(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port)
    daemon.console("suspend", "domain", "held.test")
    send(daemon, "held.test", 2)
    v = why(daemon, "held.test", "suspended", until=lambda v: v["active"] == 2)
    r = v["reasons"][0]
    expect("an operator suspended it, uid " in r["what"] and "(pid " in r["what"], r["what"])
    expect_equal((r["what_changes_it"], "set_at" in r, v["next_attempt_at"]), ("resume domain held.test", False, None), "what ends it")
    since = r["what"].split(" at ")[1].split(";")[0]
    orders = wait_until(lambda: [x for x in daemon.lines(file="paniclog") if "suspend domain held.test" in "@".join(x)],
                        "the order in paniclog")
    # The clocks of two threads, read one after the other.
    expect(int(orders[0][0]) - 1 <= seconds_of(since) <= time.time(), f"since {since}, ordered at {orders[0][0]}")
    expect(r["what"].split("it, ")[1].split(", at")[0] in "@".join(orders[0]), f"who: {r['what']}, {orders[0]}")
    expect_equal(v["drain"], {"assumption": "not before that ends"}, "drain")
    end = daemon.console("suspend", "domain", "held.test", "for", "2h")["until_at"]
    v = why(daemon, "held.test", "suspended", until=lambda v: v["next_attempt_at"] is not None)
    expect(f", until {end}" in v["reasons"][0]["what"], v["reasons"][0]["what"])
    expect(abs(seconds_of(v["next_attempt_at"]) - seconds_of(end)) <= 1, f"the next try, and the end: {v}, {end}")
    daemon.console("resume", "domain", "held.test")
    peer.wait(2)
    expect_equal(why(daemon, "held.test", "nothing")["reasons"], [], "reasons when it was resumed")


test_an_operators_suspension.short = True


def test_mail_that_an_operator_holds(flow):
    peer = Peer(flow, rcpt=lambda session: "450 4.2.1 later" if not peer.good else True)
    peer.good = False
    daemon = Daemon(flow, sink_port=peer.port, text='retry_interval = "1h"')
    ids = send(daemon, "held.test", 2)
    why(daemon, "held.test", "retry", until=lambda v: v["delayed"] == 2)
    daemon.console("hold", "domain", "held.test")
    v = why(daemon, "held.test", "held_mail")
    r = v["reasons"][0]
    expect_equal((v["held"], v["delayed"], r["count"], r["holds"], r["what_changes_it"]),
                 (2, 0, 2, False, "release domain held.test"), "what is held")
    expect("2 messages are held by an operator" in v["why"], v["why"])
    found = daemon.console("why", "message", ids[0])["deliveries"][0]
    expect_equal((found["place"], found["reason"]), ("held", "held_mail"), "of a message")
    expect(f"release id {ids[0]}" in found["why"], found["why"])
    expect_equal(daemon.console("domain", "held.test")["state"], "all of it held by an operator", "state")
    daemon.console("release", "domain", "held.test")
    why(daemon, "held.test", "retry", until=lambda v: v["held"] == 0)


def test_a_suspension_of_the_configuration(flow):
    daemon = Daemon(flow, text='''domain "held.test" {
suspend_delivery = true
}''')
    send(daemon, "held.test")
    r = why(daemon, "held.test", "suspended")["reasons"][0]
    expect_equal((r["option"], r["value"], r["set_at"], r["set_by"]),
                 ("suspend_delivery", "true", line_of(daemon, "suspend_delivery"), 'domain "held.test"'), "who set it")
    expect("an operator" not in r["what"], r["what"])


def test_a_binding_and_a_domain_that_are_both_suspended(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text='binding "a" { }\n')
    daemon.console("suspend", "binding", "a")
    send(daemon, "held.test", 1, "a")
    v = why(daemon, "held.test", "binding_suspended", "a")
    expect_equal([r["reason"] for r in v["reasons"]], ["binding_suspended"], "one reason")
    expect("uid " in v["reasons"][0]["what"], f"who: {v['reasons'][0]['what']}")
    daemon.console("suspend", "domain", "held.test", "a")
    v = why(daemon, "held.test", "suspended", "a")
    expect_equal([r["reason"] for r in v["reasons"]], ["suspended", "binding_suspended"], "both reasons")
    expect("so would the binding is suspended" in v["why"] or "the binding is suspended" in v["why"], v["why"])
    daemon.console("resume", "domain", "held.test", "a")
    why(daemon, "held.test", "binding_suspended", "a")
    expect_equal(len(peer.mails), 0, "messages while one of them held")
    daemon.console("resume", "binding", "a")
    peer.wait(1)


# ---- the name service ----


def test_a_name_server_that_is_asked_and_does_not_answer(flow):
    server = SilentServer(flow)
    daemon = Daemon(flow, text=f'''resolver {{ forwarders = ( "127.0.0.1@{server.port}" ) timeout = "10m" }}
stop_timeout = "1s"''')
    send(daemon, "silent.test", 2)
    v = why(daemon, "silent.test", "resolving", until=lambda v: v["active"] == 2)
    expect(v["reasons"][0]["what"].startswith("waiting for the name service to answer"), v["reasons"][0]["what"])
    expect_equal(v["next_attempt_at"], None, "next try")


def test_a_name_server_that_did_not_answer(flow):
    server = SilentServer(flow)
    daemon = Daemon(flow, text=f'''resolver {{ forwarders = ( "127.0.0.1@{server.port}" ) timeout = "1s" }}
host_failure_retry = "30m"''')
    send(daemon, "silent.test", 2)
    v = why(daemon, "silent.test", "dns_timeout", until=lambda v: (v["active"], v["delayed"]) == (1, 1))
    r = v["reasons"][0]
    expect_equal((r["option"], r["value"], r["set_at"]), ("host_failure_retry", "30m", line_of(daemon, "host_failure_retry")), "option")
    expect("cannot look up MX of silent.test" in r["what"], r["what"])
    expect(0 < r["next_in_ms"] <= 1800000, f"asked again in {r['next_in_ms']} ms")
    expect_equal(row(v, "retry")["count"], 1, "the one that heard of it")
    # Asked again at once, which is what the row says.
    asked = len(server.asked("silent"))
    daemon.console(*r["what_changes_it"].split(" tries")[0].split())
    wait_until(lambda: len(server.asked("silent")) > asked, "it to be asked again")


def test_a_domain_that_takes_no_mail(flow):
    server = NameServer(flow, Zone("test", "null MX 0 .\n", state="plain"))
    daemon = Daemon(flow, text=server.resolver(trusted=False))
    send(daemon, "null.test")
    daemon.wait_lines("P", 1)
    v = why(daemon, "null.test", "no_route")
    r = v["reasons"][0]
    expect(r["what"].startswith("mail fails for good: ") and "null.test" in r["what"], r["what"])
    # As long as the answer holds: the zone says five minutes or an hour.
    expect(0 < r["next_in_ms"] <= 3600001, f"asked again in {r['next_in_ms']} ms")


# ---- next hops ----


def test_next_hops_that_all_failed(flow):
    """Each with its last error; and when the first is tried again it is there."""
    refused, busy = free_port(), Peer(flow, banner="421 go away")
    daemon = Daemon(flow, text=f'''retry_interval = "1h"
domain "dead.test" {{ gateway = ( "127.0.0.1:{refused}" "127.0.0.1:{busy.port}?pref=20" )
host_failure_retry = "3s" }}''')
    # Each try defers one.
    send(daemon, "dead.test", 8)
    v = why(daemon, "dead.test", "hosts_failed", until=lambda v: v["active"] > 0 and v["delayed"] > 0 and
            all(h["last_error"] for h in v["next_hops"]))
    r = v["reasons"][0]
    expect_equal((r["option"], r["value"], r["set_at"], r["set_by"]),
                 ("host_failure_retry", "3s", line_of(daemon, "host_failure_retry"), 'domain "dead.test"'), "who set it")
    hosts = {h["address"]: h for h in v["next_hops"]}
    expect("Connection refused" in hosts[f"127.0.0.1:{refused}"]["last_error"], f"{hosts}")
    expect("421 go away" in hosts[f"127.0.0.1:{busy.port}"]["last_error"], f"{hosts}")
    expect(0 < r["next_in_ms"] <= 3000, f"tried again in {r['next_in_ms']} ms")
    expect_equal(row(v, "retry")["option"], "retry_interval", "what those that heard of it wait for")
    peer = Peer(flow, refused)
    expect_not_before(daemon, r["next_at"], "D", 1)
    peer.wait(1)


def test_tls_that_is_demanded_and_not_offered(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, text=f'''domain "secret.test" {{ gateway = "127.0.0.1:{peer.port}"
tls = required }}''')
    send(daemon, "secret.test", 2)
    v = why(daemon, "secret.test", "tls_policy", until=lambda v: v["active"] == 1)
    r = v["reasons"][0]
    expect_equal((r["option"], r["value"], r["set_at"]), ("tls", "required", line_of(daemon, "tls = required")), "who demands it")
    expect("does not offer STARTTLS" in r["what"], r["what"])
    expect("does not offer STARTTLS" in v["next_hops"][0]["last_error"], f"{v['next_hops']}")
    expect(r["next_in_ms"] > 0, "no next try")
    # With TLS it takes them when it is told to be tried.
    peer.tls = Certificates(flow).server()
    peer.offers = (*peer.offers, "STARTTLS")
    daemon.console("flush", "domain", "secret.test")
    peer.wait(2)


def test_an_address_that_the_machine_has_not(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text='''binding "a" {
bind_address = "192.0.2.1" }''')
    send(daemon, "far.test", 2, "a")
    v = why(daemon, "far.test", "bind_address", "a", until=lambda v: v["active"] == 1)
    r = v["reasons"][0]
    expect_equal((r["option"], r["value"], r["set_at"], r["set_by"]),
                 ("bind_address", "192.0.2.1", line_of(daemon, "bind_address"), 'binding "a"'), "who set it")
    expect(r["next_in_ms"] > 0, "no next try")


# ---- its next try ----


def test_mail_that_waits_for_its_next_try(flow):
    peer = Peer(flow, rcpt="451 greylisted")
    daemon = Daemon(flow, sink_port=peer.port, text='domain "grey.test" {\nretry_interval = "3s" }')
    message, = send(daemon, "grey.test")
    daemon.wait_lines("T", 1)

    def both():
        """Of the same wait, as there are several."""
        v, m = ask(daemon, "grey.test"), daemon.console("why", "message", message)["deliveries"][0]
        return v["reason"] == "retry" and v["next_due_at"] == m["next_at"] and (v, m)

    v, m = wait_until(both, "it to wait for its next try")
    r = v["reasons"][0]
    expect_equal((r["count"], r["option"], r["value"], r["set_at"]),
                 (1, "retry_interval", "3s", line_of(daemon, "retry_interval")), "option")
    expect(f"attempts so far: {m['attempts']}; last answer: 451 greylisted" in r["what"], r["what"])
    expect_equal((v["delayed"], v["due_in_an_hour"]), (1, 1), "how many are due")
    expect_equal((m["place"], m["reason"], m["last_reply"]), ("delayed queue", "retry", "451 greylisted"), "why message")
    expect(abs(seconds_of(v["next_attempt_at"]) - seconds_of(v["next_due_at"])) <= 1, f"next attempt: {v}")
    expect_not_before(daemon, v["next_due_at"], "T", m["attempts"] + 1)


# ---- several at once ----


def test_a_throttle_and_a_connection_limit_at_once(flow):
    """The one that the dispatcher met first binds, both are told, and lifting it shows the other."""
    gate = Gate()
    peer = Peer(flow, dot=gate)
    daemon = Daemon(flow, text=f'''domain "both.test" {{ gateway = "127.0.0.1:{peer.port}"
max_outbound_connections = 1
outbound_throttle_messages = "1/3600"
}}''')
    send(daemon, "both.test", 3)
    v = why(daemon, "both.test", "max_outbound_connections", until=lambda v: v["on_connections"] == 1)
    expect_equal([(r["reason"], r["limit"], r["set_at"]) for r in v["reasons"]],
                 [("max_outbound_connections", 1, line_of(daemon, "max_outbound_connections")),
                  ("outbound_throttle_messages", 1, line_of(daemon, "outbound_throttle_messages"))], "both")
    expect("; so would outbound_throttle_messages" in v["why"], v["why"])
    limits = {r["limit"]: r.get("holds_now") for r in daemon.console("domain", "both.test")["limits"]}
    expect_equal((limits["max_outbound_connections"], limits["outbound_throttle_messages"]), (True, True), "what domain says")
    gate.open()
    peer.wait(1)
    v = why(daemon, "both.test", "outbound_throttle_messages")
    expect_equal([r["reason"] for r in v["reasons"]], ["outbound_throttle_messages"], "an idle connection is no obstacle")
    # An hour for the next one, another one for the last.
    expect(0 < v["next_attempt_in_ms"] <= 3600000 < v["drain"]["in_s"] * 1000 <= 7200000, f"next and drain: {v}")
    expect_equal(len(peer.mails), 1, "messages")


def test_a_suspension_before_a_throttle(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text='outbound_throttle_messages = "1/3600"')
    send(daemon, "held.test", 2)
    peer.wait(1)
    why(daemon, "held.test", "outbound_throttle_messages")
    daemon.console("suspend", "domain", "held.test")
    v = why(daemon, "held.test", "suspended")
    expect_equal([r["reason"] for r in v["reasons"]], ["suspended", "outbound_throttle_messages"], "both, the order first")
    expect_equal(row(v, "outbound_throttle_messages")["set_by"], "the global scope", "who set the throttle")


# ---- memory and disk ----


def test_memory_that_is_used_up(flow):
    sink = Sink(flow, "--slow-read", "2000")
    daemon = Daemon(flow, schedulers=1, text=f'''memory_budget = "4M"
stop_timeout = "1s"
domain "unread.test" {{ gateway = "127.0.0.1:{sink.port}" max_outbound_connections = 100 suspend_delivery = true }}''')
    send(daemon, "unread.test", 40, body=("x" * 70 + "\r\n") * (500 * KIB // 72))
    daemon.console("resume", "domain", "unread.test")
    v = why(daemon, "unread.test", "memory_budget")
    r = v["reasons"][0]
    expect_equal((r["of"], r["limit_bytes"], r["set_at"]), ("program", 4 << 20, line_of(daemon, "memory_budget")), "the limit")
    expect(r["in_use_bytes"] > 0, f"in use: {r}")


def test_a_disk_without_room(flow):
    """Queued mail is not held by it, but it is said."""
    daemon = Daemon(flow, text="suspend_delivery = true")
    send(daemon, "queued.test")
    expect_equal(daemon.terminate()[0], 0, "exit status")
    daemon.config.write_text(daemon.config.read_text().replace('min_free = "0"', 'min_free = "64T"'))
    daemon.start()
    v = why(daemon, "queued.test", "suspended", until=lambda v: len(v["reasons"]) == 2)
    r = row(v, "disk_full")
    expect_equal((r["holds"], r["set_at"], r["set_by"]), (False, line_of(daemon, "min_free"), "spool"), "min_free")


# ---- nothing at all, lists, messages, words ----


def test_a_scheduler_with_too_much_to_do(flow):
    """Any cycle is too long here: what is asked of the other scheduler takes longer."""
    daemon = Daemon(flow, schedulers=2, text='stall_threshold = "1us"\nsuspend_delivery = true')
    send(daemon, "held.test")

    def saturated():
        v = daemon.console("why", "domain", "held.test")
        return next(((v, r) for r in v["reasons"] if r["reason"] == "scheduler"), None)
    v, r = wait_until(saturated, "a scheduler that is saturated")
    expect("has too much to do" in r["what"] and r["option"] == "stall_threshold" and ".conf:" in r["set_at"], r)
    expect_equal(v["reasons"][0]["reason"], "suspended", "what holds it first")


def test_nothing_holds_what_is_being_sent(flow):
    gate = Gate()
    peer = Peer(flow, dot=gate)
    daemon = Daemon(flow, sink_port=peer.port)
    message, = send(daemon, "now.test")
    wait_until(lambda: peer.said("DATA"), "the message to be on its way")
    v = why(daemon, "now.test", "nothing", until=lambda v: v["on_connections"] == 1)
    expect_equal((v["reasons"], v["active"]), ([], 0), "reasons")
    expect(v["why"].startswith("now.test: nothing holds it: 0 messages wait, 1 on 1 connection"), v["why"])
    m = daemon.console("why", "message", message)
    expect_equal((m["deliveries"][0]["reason"], m["deliveries"][0]["place"]), ("on_a_connection", "on a connection"), "the message")
    expect("127.0.0.1" in m["why"], m["why"])
    gate.open()
    peer.wait(1)
    daemon.wait_for_rest()
    expect("no delivery of message" in daemon.console("why", "message", message, fail=True), "a message that is gone")
    expect("no record of domain" in daemon.console("why", "domain", "never.test", fail=True), "a domain without mail")


def test_the_longest_queues_and_messages_in_them(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text='outbound_throttle_messages = "1/3600"\n'
                    'domain "free.test" { outbound_throttle_messages = "none" }')
    daemon.console("suspend", "domain", "short.test")
    send(daemon, "short.test", 2)
    ids = send(daemon, "long.test", 6)
    send(daemon, "free.test", 2)
    peer.wait(3)
    rows = wait_until(lambda: len(r := daemon.console("why")["queues"]) == 2 and r[0]["active"] == 5 and r, "two queues")
    expect_equal([(r["domain"], r["active"], r["reason"]) for r in rows],
                 [("long.test", 5, "outbound_throttle_messages"), ("short.test", 2, "suspended")], "queues, the longest first")
    expect(0 < rows[0]["next_in_ms"] <= 3600000 and rows[1]["next_in_ms"] is None, f"next: {rows}")
    expect(line_of(daemon, '"1/3600"') in rows[0]["why"], rows[0]["why"])
    # They are sent in their order.
    v = [daemon.console("why", "message", i)["deliveries"][0] for i in ids[1:]]
    expect_equal([(m["ahead"], m["reason"]) for m in v], [(n, "outbound_throttle_messages") for n in range(5)], "messages before it")


def test_words_for_people(flow):
    gate = Gate()
    peer = Peer(flow, dot=gate)
    daemon = Daemon(flow, text=f'''domain "busy.test" {{ gateway = "127.0.0.1:{peer.port}"
max_outbound_connections = 1 }}''')
    send(daemon, "busy.test", 3)
    why(daemon, "busy.test", "max_outbound_connections", until=lambda v: v["on_connections"] == 1)

    def say(*words):
        done = subprocess.run([flow.program("flywheel"), "-s", daemon.control, *words], capture_output=True, text=True,
                              timeout=PATIENCE)
        expect_equal((done.returncode, done.stderr), (0, ""), f"status and errors of {words}")
        return done.stdout.splitlines()

    at = line_of(daemon, "max_outbound_connections")
    lines = say("why", "domain", "busy.test")
    expect(lines[0].split(":", 1)[1].strip().startswith(
        f"busy.test: 2 messages wait for max_outbound_connections = 1 ({at}), 1 in use"), lines[0])
    expect(any(line == "Reasons" for line in lines), f"no table in {lines}")
    lines = say("why")
    expect(lines[2].split()[:6] == ["busy.test", "default", "2", "0", "0", "max_outbound_connections"], lines[2])
    gate.open()
    peer.wait(3)
