"""Internationalized domains: one name inside, that of the DNS, whoever writes which one; and mail with
SMTPUTF8 for next hops that do not know it."""

import re
import subprocess

from flow import Daemon, expect, expect_equal, wait_until
from peer import Peer
from test_bouncelog import wait_bounces

HELLO = "Subject: hello\r\n\r\nhello\r\n"
ASCII = "xn--bcher-kva.test"


def send(daemon, *recipients, sender="from@sender.test", body=HELLO):
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    client.say(f"MAIL FROM:<{sender}> SMTPUTF8 BODY=8BITMIME", 250)
    for recipient in recipients:
        client.say(f"RCPT TO:<{recipient}>", 250)
    client.say("DATA", 354)
    client.send(body)
    client.say(".", 250)


def test_knows_a_domain_by_all_of_its_names(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, listener='relay_hosts = ( ) relay_domains = ( "BÜCHER.test" )',
                    text=f'domain "Bücher.test" {{ gateway = "127.0.0.1:{peer.port}" suspend_delivery = true }}')
    names = ("bücher.test", "BÜCHER.TEST", "xn--bcher-kva.test", "XN--BCHER-KVA.test", "bücher。test", "bu\u0308cher.test")
    for number, name in enumerate(names):
        send(daemon, f"to{number}@{name}")
    # All are the same recipient.
    send(daemon, *(f"one@{name}" for name in names))
    for name in (ASCII, "bücher.test", "BÜCHER.test."):
        wait_until(lambda: daemon.console("domain", name)["queue"]["active"] == len(names) + 1, f"the queue of {name}")
    expect_equal([row["domain"] for row in daemon.console("domains")["domains"]], [ASCII], "domains")
    daemon.console("resume", "domain", "bücher.test")
    mails = peer.wait(len(names) + 1)
    daemon.wait_for_rest()
    expect_equal(sorted(r for m in mails for r in m.recipients),
                 sorted([f"one@{ASCII}"] + [f"to{n}@{ASCII}" for n in range(len(names))]), "recipients")
    expect_equal({line[5] for line in daemon.wait_lines("D", len(mails))}, {ASCII}, "domains in the log")


test_knows_a_domain_by_all_of_its_names.short = True


def test_refuses_domains_that_cannot_be(flow):
    daemon = Daemon(flow)
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    for sender in ("a@☃.test", "a@-ü.test"):
        expect(client.say(f"MAIL FROM:<{sender}> SMTPUTF8", 553)[1].startswith("5.1.7"), sender)
    client.say("MAIL FROM:<a@b.test> SMTPUTF8", 250)
    for recipient in ("a@☃.test", "a@ü..test", "a@ü\u202e.test", "a@" + "ü" * 70 + ".test"):
        expect(client.say(f"RCPT TO:<{recipient}>", 553)[1].startswith("5.1.3"), recipient)
    daemon.config.write_text(daemon.config.read_text() + 'domain "☃.test" { }\n')
    done = subprocess.run([flow.program("flywheeld"), "--check", "--config", daemon.config], capture_output=True,
                          text=True, timeout=60)
    lines = len(daemon.config.read_text().splitlines())
    expect(done.returncode == 1 and re.match(rf"{re.escape(str(daemon.config))}:{lines}: .*☃.test.* is not a domain",
                                             done.stderr), f"{done.returncode} {done.stderr}")


def test_sends_what_is_ascii_to_those_without_smtputf8(flow):
    """Domains are, as A-labels; local parts and headers may be."""
    old, new = Peer(flow, offers=("8BITMIME",)), Peer(flow)
    daemon = Daemon(flow, sink_port=old.port, text=f'''generate_bounces = false
domain "new.test" {{ gateway = "127.0.0.1:{new.port}" }}''')
    send(daemon, "a@bücher.test", "jürgen@bücher.test", "b@bücher.test", "jürgen@new.test", sender="from@grüße.test")
    mail = old.wait(1)[0]
    expect_equal((mail.sender, mail.recipients), ("from@xn--gre-6ka8l.test", [f"a@{ASCII}", f"b@{ASCII}"]), "envelope")
    expect("SMTPUTF8" not in old.said("MAIL")[0][1], "SMTPUTF8 to who does not know it")
    failed = [(b["local"], b["domain"], b["text"][:9]) for b in wait_bounces(daemon, "B", 1)]
    expect_equal(failed, [("jürgen", ASCII, "550 5.6.7")], "what failed")
    expect_equal(new.wait(1)[0].recipients, ["jürgen@new.test"], "recipient where it is offered")
    expect("SMTPUTF8" in new.said("MAIL")[0][1], "SMTPUTF8 was not passed on")
    # A header needs it, a body does not.
    send(daemon, f"c@{ASCII}", body="Subject: Grüße\r\n\r\nhello\r\n")
    send(daemon, f"d@{ASCII}", sender="jürgen@sender.test")
    send(daemon, f"e@{ASCII}", body="Subject: hello\r\n\r\nGrüße\r\n")
    expect_equal(old.wait(2)[1].recipients, [f"e@{ASCII}"], "recipients")
    expect_equal(sorted(b["local"] for b in wait_bounces(daemon, "B", 3)), ["c", "d", "jürgen"], "what failed")
