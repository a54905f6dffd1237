"""Configuration that lives: a running program takes another one, or nothing of it; who is in the middle of something
ends it by the one it began with; and whatever happens, no message is lost or refused."""

import os
import re
import signal
import socket
import threading

from certificates import Certificates
from flow import PATIENCE, Client, Daemon, Sink, can_connect, expect, expect_equal, free_port, wait_until
from peer import Peer

HELLO = "Subject: hello\r\n\r\nhello\r\n"


def change(daemon, old, new, count=1):
    text = daemon.config.read_text()
    expect_equal(text.count(old), count, f"times that {old!r} is in the configuration")
    daemon.config.write_text(text.replace(old, new))


def reload(daemon):
    return daemon.console("config", "reload")


def refused(daemon):
    """The words of a reload that fails."""
    before = daemon.console("config", "status")["generation"]
    answer = daemon.console("config", "reload", fail=True)
    expect("nothing has changed" in answer, f"answer: {answer}")
    expect_equal(daemon.console("config", "status")["generation"], before, "generation after a reload that failed")
    return answer


def alone(daemon):
    """Nobody has an earlier generation any more."""
    wait_until(lambda: daemon.console("config", "status")["alive"] == 1, "the generations before to be over")


def test_reload_takes_what_the_files_say(flow):
    daemon = Daemon(flow, text='banner = "before"')
    status = daemon.console("config", "status")
    expect_equal((status["generation"], status["alive"], len(status["generations"])), (1, 1, 1), "at the start")
    change(daemon, '"before"', '"after"')
    expect_equal(reload(daemon), {"generation": 2, "restart_needed": False}, "answer")
    client = Client(daemon.port, greet=False)
    expect("after" in client.reply()[1], "the banner is the one from before")
    alone(daemon)
    expect_equal(daemon.console("config", "status")["generations"][0]["number"], 2, "the one that is alive")
    expect_equal(daemon.counter("scheduler.config.generations"), 1, "generations alive, as a metric")
    expect_equal(daemon.counter("scheduler.config.generation"), 2, "generation, as a metric")


def test_reload_by_signal(flow):
    daemon = Daemon(flow, text='banner = "before"')
    change(daemon, '"before"', '"after"')
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: daemon.console("config", "status")["generation"] == 2, "the second generation")
    change(daemon, '"after"', '"after" nonsense = 1')
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_panic("nothing has changed")
    lines = (daemon.log / "paniclog").read_text()
    expect(f"{daemon.config}:" in lines and '"nonsense": unknown' in lines, f"paniclog: {lines}")
    expect_equal(daemon.console("config", "status")["generation"], 2, "generation")
    # What the console has set stands on no line.
    change(daemon, ' nonsense = 1', "")
    row = daemon.console("config", "set", "ring_slots", "128")["not_applied"][0]
    expect(re.fullmatch("set by the console, [^:]+:[0-9]+:[0-9]+Z", row["set_at"]), f"place: {row}")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_panic(f'@scheduler.0: {row["set_at"]}: ring_slots of the global scope takes effect with a restart only')


def test_a_reload_that_fails_changes_nothing(flow):
    certificates = Certificates(flow)
    taken = socket.create_server(("127.0.0.1", 0))
    script = flow.path / "policy.lua"
    script.write_text("local mod = {}\n")
    daemon = Daemon(flow, text='banner = "before"\n#here\n'
                               f'scriptlet "scriptlet" {{ script "policy" {{ source = "{script}" }} }}')
    good = daemon.config.read_text()
    for text, words in (
        ("first = 1\nsecond = 2", ('"first": unknown', '"second": unknown')),
        ("max_outbound_connections = many", ('"max_outbound_connections"',)),
        ('tls_certificate = "/nowhere.pem"', ("tls_certificate", "/nowhere.pem")),
        (f'dkim "a.test" {{ selector = "s" key = "{certificates.ca}" }}', ('option "key"',)),
        (f'domain "a.test" {{ tls = verify tls_ca = "{flow.path}/none" }}', ('option "tls_ca"',)),
        ('include "none.conf"', ("none.conf",)),
        ("agent scheduler { count = 250 }", ("expected at most",)),
        ('group all { core = -1 }\nagent scheduler { count = 31 group = all }\nagent resolver { group = all }',
         ('group "all": 34 agents', "expected at most 32")),
        (f'bounce_rules = "{flow.path}/none"', ("none",)),
        (f'esmtp_listener {{ listen "127.0.0.1:{taken.getsockname()[1]}" {{ }} }}', ("cannot listen on",)),
    ):
        daemon.config.write_text(good.replace("#here", text).replace('"before"', '"after"'))
        answer = refused(daemon)
        for word in words:
            expect(word in answer, f"{word!r} is not in {answer!r}")
    daemon.config.write_text(good)
    script.write_text("local mod = {\n")
    expect("policy.lua:" in refused(daemon), "the script is wrong")
    script.write_text("local mod = {}\n")
    client = Client(daemon.port, greet=False)
    expect("before" in client.reply()[1], "the banner has changed")
    expect_equal(reload(daemon)["generation"], 2, "the next number")


def test_what_needs_a_restart_is_named_and_stays(flow):
    daemon = Daemon(flow, text='banner = "before"')
    change(daemon, 'segment_size = "8M"', 'segment_size = "16M"')
    change(daemon, '"before"', '"after"\njournal "j" { sync = never }\ncustom_logger "c" { mainlog = "file:own" delivery_format = "%M" }')
    answer = reload(daemon)
    expect(answer["restart_needed"], f"answer: {answer}")
    rows = {(row["scope"], row["option"]): row for row in answer["not_applied"]}
    expect_equal(set(rows), {("spool", "segment_size"), ('journal "j"', ""), ('custom_logger "c"', "")}, "rows")
    row = rows["spool", "segment_size"]
    expect_equal((row["running"], row["in_the_files"]), ('"8M"', '"16M"'), "values")
    number = next(i for i, line in enumerate(daemon.config.read_text().splitlines(), 1) if "segment_size" in line)
    expect_equal(row["set_at"], f"{daemon.config}:{number}", "place")
    client = Client(daemon.port, greet=False)
    expect("after" in client.reply()[1], "what is dynamic was not applied")
    # The same again, as it is still not so.
    expect_equal(len(reload(daemon)["not_applied"]), 3, "rows of another reload")
    change(daemon, 'segment_size = "16M"', 'segment_size = "8M"')
    change(daemon, '\njournal "j" { sync = never }\ncustom_logger "c" { mainlog = "file:own" delivery_format = "%M" }', "")
    expect_equal(reload(daemon), {"generation": 4, "restart_needed": False}, "answer")


def test_a_transaction_ends_by_the_generation_it_began_with(flow):
    daemon = Daemon(flow, text='suspend_delivery = true\nmax_recipients_per_message = 3')
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    client.say("MAIL FROM:<from@sender.test>", 250)
    client.say("RCPT TO:<one@a.test>", 250)
    idle = daemon.connect()
    change(daemon, "max_recipients_per_message = 3", "max_recipients_per_message = 1")
    reload(daemon)
    client.say("RCPT TO:<two@a.test>", 250)
    client.say("RCPT TO:<three@a.test>", 250)
    expect_equal(daemon.console("config", "status")["alive"], 2, "generations while it goes on")
    client.say("DATA", 354)
    client.send(HELLO)
    client.say(".", 250)
    # Whoever is between two messages has the new one, though he says nothing.
    alone(daemon)
    for who in (client, idle):
        who.say("EHLO client.test", 250)
        who.say("MAIL FROM:<from@sender.test>", 250)
        who.say("RCPT TO:<one@a.test>", 250)
        expect_equal(who.say("RCPT TO:<two@a.test>")[0], 452, "second recipient")


def test_so_many_generations_and_no_more(flow):
    """Each is kept by a client in the middle of a message. Keys and certificates make no generation: they are read anew."""
    daemon = Daemon(flow)
    clients = []
    for alive in range(1, 65):
        expect_equal(daemon.console("config", "status")["alive"], alive, "generations")
        clients.append(daemon.connect())
        clients[-1].say("EHLO client.test", 250)
        clients[-1].say("MAIL FROM:<from@sender.test>", 250)
        if alive < 64:
            reload(daemon)
    expect("as many generations are in use as there may be" in refused(daemon), "another one is refused by other words")
    expect_equal(daemon.console("dkim", "reload"), {"keys_reloaded": 0, "keys_unchanged": 0}, "keys")
    expect_equal(daemon.console("tls", "reload"), {"contexts_reloaded": 0}, "certificates")
    clients[0].say("RSET", 250)
    wait_until(lambda: daemon.console("config", "status")["alive"] == 63, "the end of the first generation")
    expect_equal(reload(daemon)["generation"], 65, "the next one")


def test_xclient_hosts_follow_within_a_session(flow):
    """By who connected, whomever he has told of since."""
    daemon = Daemon(flow, listener='xclient_hosts = ( "127.0.0.1" )\npeer "192.0.2.0/24" { xclient_hosts = ( ) }')
    client, told = daemon.connect(), daemon.connect()
    for who in (client, told):
        expect("XCLIENT" in who.say("EHLO client.test", 250)[1], "a proxy is offered XCLIENT")
    told.say("XCLIENT ADDR=192.0.2.7", 220)
    for before, hosts, offered in (("127.0.0.1", "127.0.0.2", False), ("127.0.0.2", "127.0.0.1", True)):
        change(daemon, f'xclient_hosts = ( "{before}" )', f'xclient_hosts = ( "{hosts}" )')
        reload(daemon)
        alone(daemon)
        for who in (client, told):
            expect_equal("XCLIENT" in who.say("EHLO client.test", 250)[1], offered, f"XCLIENT is offered, with {hosts}")
            who.say("XCLIENT ADDR=192.0.2.7", 220 if offered else 550)


def test_listens_are_opened_and_closed(flow):
    added, path = free_port(), flow.path / "second"
    daemon = Daemon(flow, text="suspend_delivery = true\n#here")
    change(daemon, "#here", f'esmtp_listener {{ listen "127.0.0.1:{added}" {{ banner = "added" }} }}\n'
                            f'control_listener {{ listen "{path}" {{ file_mode = 0600 }} }}#here')
    reload(daemon)
    client = Client(added, greet=False)
    expect("added" in client.reply()[1], "banner")
    expect_equal(path.stat().st_mode & 0o777, 0o600, "mode of the new socket")
    first = daemon.connect()
    text = daemon.config.read_text()
    daemon.config.write_text(text[:text.rindex("esmtp_listener")]
                             + f'esmtp_listener {{ listen "127.0.0.1:{added}" {{ banner = "changed" }} }}\n')
    daemon.config.write_text(daemon.config.read_text().replace(
        f'listen "127.0.0.1:{daemon.port}" {{ }}', f'listen "127.0.0.1:{daemon.port}" {{ enable = false }}'))
    reload(daemon)
    wait_until(lambda: not can_connect(daemon.port), "the first listen to be closed")
    expect(not path.exists(), "the second console's socket is still there")
    # Those who came by it end as they would, with what they had; others have what is new.
    expect_equal(first.mail("to@a.test", body=HELLO)[0], 250, "mail by a listen that is closed")
    expect_equal(client.mail("to@a.test", body=HELLO)[0], 250, "mail by one that goes on")
    fresh = Client(added, greet=False)
    expect("changed" in fresh.reply()[1], "banner")
    expect_equal(daemon.console("config", "status")["alive"], 2, "generations while a closed listen has a client")
    first.close()
    alone(daemon)
    # And again at the same address.
    daemon.config.write_text(daemon.config.read_text().replace("{ enable = false }", "{ }"))
    reload(daemon)
    expect_equal(daemon.connect().mail("to@a.test", body=HELLO)[0], 250, "mail by the first listen again")


def test_http_listens_follow(flow):
    import http.client

    port = free_port()
    daemon = Daemon(flow, text='#here\nmetrics_interval = "10m"')

    def health(token):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/api/v1", headers={"Authorization": f"Bearer {token}"})
        status = connection.getresponse().status
        connection.close()
        return status

    change(daemon, "#here", f'http_listener {{ listen "127.0.0.1:{port}" {{ token = "one-token" }} }}')
    reload(daemon)
    expect_equal((health("one-token"), health("two-token")), (200, 401), "answers")
    # Who follows events holds nothing back, nor lets others in by what counted before.
    kept = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    kept.request("GET", "/api/v1", headers={"Authorization": "Bearer one-token"})
    expect_equal(kept.getresponse().read() != b"", True, "an answer")
    follower = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    follower.request("GET", "/events", headers={"Authorization": "Bearer one-token"})
    events = follower.getresponse()
    expect_equal(events.readline().strip(), b"event: stats", "the first event")
    change(daemon, 'token = "one-token"', 'token = "two-token" max_header_size = "8K"')
    reload(daemon)
    expect(events.read().endswith(b"\n\n"), "events do not end in order")
    expect_equal(kept.sock.recv(1), b"", "what a connection of before says")
    alone(daemon)
    expect_equal((health("one-token"), health("two-token")), (401, 200), "answers")
    change(daemon, f'http_listener {{ listen "127.0.0.1:{port}" {{ token = "two-token" max_header_size = "8K" }} }}', "")
    reload(daemon)
    wait_until(lambda: not can_connect(port), "the listen to be closed")
    alone(daemon)


def serial(port, certificates):
    """The name that the server's certificate is for."""
    client = Client(port)
    client.say("EHLO client.test", 250)
    client.say("STARTTLS", 220)
    context = certificates.client()
    context.check_hostname = False
    with context.wrap_socket(client.socket) as tls:
        return dict(pair[0] for pair in tls.getpeercert()["subject"])["commonName"]


def test_certificates_follow(flow):
    certificates = Certificates(flow)
    one, two = certificates.make("one.test"), certificates.make("two.test")
    daemon = Daemon(flow, text=f'tls_certificate = "{one}"\ntls_key = "{certificates.key}"')
    expect_equal(serial(daemon.port, certificates), "one.test", "name")
    change(daemon, str(one), str(two))
    reload(daemon)
    expect_equal(serial(daemon.port, certificates), "two.test", "name")
    # The files of the newest generation are those that keys alone are read from.
    os.replace(one, two)
    expect_equal(daemon.console("tls", "reload"), {"contexts_reloaded": 1}, "answer")
    expect_equal(serial(daemon.port, certificates), "one.test", "name")


def test_a_limit_is_raised_and_lowered(flow):
    # Transactions wait at the end of their bodies until they are let go.
    gate = threading.Semaphore(0)
    peer = Peer(flow, dot=lambda session: gate.acquire(timeout=PATIENCE))
    daemon = Daemon(flow, text='domain "a.test" { max_outbound_connections = 2 max_deliveries_per_connection = 1 }',
                    sink_port=peer.port)
    for _ in range(12):
        expect_equal(daemon.connect().mail("to@a.test", body=HELLO)[0], 250, "reply")

    def connections():
        return len(daemon.console("domain", "a.test")["connections"])

    wait_until(lambda: connections() == 2, "two connections")
    change(daemon, "max_outbound_connections = 2", "max_outbound_connections = 5")
    reload(daemon)
    wait_until(lambda: connections() == 5, "five connections")
    change(daemon, "max_outbound_connections = 5", "max_outbound_connections = 1")
    reload(daemon)
    gate.release(5)
    daemon.wait_lines("D", 5)
    wait_until(lambda: len(peer.said("DATA")) == 6 and connections() == 1, "one connection")
    reason = daemon.console("why", "domain", "a.test")["reasons"][0]
    expect_equal((reason["reason"], reason["limit"]), ("max_outbound_connections", 1), "what holds the others")
    gate.release(7)
    daemon.wait_for_rest()
    expect_equal(len(peer.wait(12)), 12, "messages")
    alone(daemon)


def test_throttles_keep_their_place(flow):
    sink = Sink(flow)
    daemon = Daemon(flow, text='domain "a.test" { outbound_throttle_messages = "1/day" }\nbanner = "before"',
                    sink_port=sink.port)
    for _ in range(2):
        expect_equal(daemon.connect().mail("to@a.test", body=HELLO)[0], 250, "reply")
    daemon.wait_lines("D", 1)
    change(daemon, '"before"', '"after"')
    reload(daemon)
    wait_until(lambda: daemon.console("why", "domain", "a.test")["reason"] == "outbound_throttle_messages",
               "the throttle to hold it, as it remembers what it has let through")
    # A higher rate holds at once, although the slot of the lower one is a day away.
    change(daemon, '"1/day"', '"1000/sec"')
    reload(daemon)
    daemon.wait_for_rest()
    daemon.wait_lines("D", 2)


def test_domains_and_bindings_come_and_go(flow):
    one, two = Peer(flow), Peer(flow)
    daemon = Daemon(flow, text=f'gateway = "127.0.0.1:{one.port}"\n#here')
    expect_equal(daemon.connect().mail("to@a.test", body=HELLO)[0], 250, "reply")
    one.wait(1)
    change(daemon, "#here", f'binding_group "g" {{ binding "b" {{ gateway = "127.0.0.1:{two.port}" }} }}\n'
                            f'domain "c.test" {{ gateway = "127.0.0.1:{two.port}" }}\n'
                            'domain "held.test" { suspend_delivery = true }\n#here')
    reload(daemon)
    expect_equal(daemon.connect().mail("to@a.test", body="X-Binding: g\r\n" + HELLO)[0], 250, "reply")
    expect_equal(daemon.connect().mail("to@c.test", body=HELLO)[0], 250, "reply")
    two.wait(2)
    expect_equal(daemon.connect().mail("to@held.test", body=HELLO)[0], 250, "reply")
    wait_until(lambda: daemon.console("domain", "held.test")["state"] == "suspended", "a suspended queue")
    text = daemon.config.read_text()
    daemon.config.write_text(text[:text.index("binding_group")])
    reload(daemon)
    # Nobody suspends it any more, and its gateway is the global one.
    one.wait(2)
    expect_equal(daemon.connect().mail("to@c.test", body=HELLO)[0], 250, "reply")
    one.wait(3)
    alone(daemon)
