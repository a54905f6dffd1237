"""What kind of failure each one was: the bounce log, for replies of next hops and for what comes back
as mail; complaints."""

import re
import subprocess

from flow import Client, Daemon, expect, expect_equal, wait_until
from peer import Peer
from test_real_peers import Postfix

HELLO = "Subject: hello\r\n\r\nhello\r\n"
FIELDS = ("time id batch connection type local domain from_local from_domain group binding stage class size ip "
          "text").split()


def unescape(field):
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r", "t": "\t"}.get(m[1], m[1]), field)


def rows(daemon, kind=None, file="bouncelog"):
    """Lines of a log as lists of fields, heartbeats left out."""
    path = daemon.log / file
    text = path.read_text(errors="replace") if path.exists() else ""
    lines = [[unescape(f) for f in re.split(r"(?<!\\)@", line)] for line in text.splitlines()]
    return [line for line in lines if line[4:] != ["M1"] and (kind is None or line[4] == kind)]


def bounces(daemon, kind=None):
    return [dict(zip(FIELDS, line)) for line in rows(daemon, kind)]


def wait_bounces(daemon, kind, count):
    wait_until(lambda: len(bounces(daemon, kind)) >= count, f"{count} lines of type {kind} in the bouncelog")
    return bounces(daemon, kind)


def stats(daemon):
    """Classes that were seen: {class: (in band, deferred, out of band)}."""
    found = {r["class"]: (r["in_band"], r["deferred"], r["out_of_band"]) for r in daemon.console("bounce_stats")}
    return {c: n for c, n in found.items() if any(n)}


# ---- in band ----


def test_classifies_what_next_hops_say(flow):
    said = {
        "gone": "550 5.1.1 no such user", "full": "552 5.2.2 mailbox is full", "listed": "550 5.7.1 see zen.spamhaus.org",
        "grey": "451 4.7.1 Greylisted, try again", "strange": "550 hm",
    }
    peer = Peer(flow, rcpt=lambda x: said[x.rcpt.split("@")[0]], offers=("PIPELINING",))
    daemon = Daemon(flow, text=f'gateway = "127.0.0.1:{peer.port}" retry_interval = "1h" generate_bounces = false')
    for name in said:
        daemon.connect().mail(f"{name}@away.test", body=HELLO)
    failed = {b["local"]: b for b in wait_bounces(daemon, "B", 4)}
    deferred = wait_bounces(daemon, "T", 1)
    expect_equal({n: b["class"] for n, b in failed.items()}, {"gone": "10", "full": "22", "listed": "50", "strange": "40"},
                 "classes")
    expect_equal([(b["local"], b["class"], b["text"]) for b in deferred], [("grey", "70", said["grey"])], "deferred")
    b = failed["gone"]
    expect_equal([b[f] for f in ("domain", "from_local", "from_domain", "group", "binding", "stage", "ip", "text")],
                 ["away.test", "from", "sender.test", "default", "default", "4", "127.0.0.1", said["gone"]], "fields")
    expect(int(b["size"]) > len(HELLO) and len(b["id"]) == 26, f"size and id: {b}")
    expect_equal({line[1] for line in daemon.lines("P")}, {b["id"] for b in failed.values()}, "ids of P lines")
    expect_equal(stats(daemon), {10: (1, 0, 0), 22: (1, 0, 0), 40: (1, 0, 0), 50: (1, 0, 0), 70: (0, 1, 0)},
                 "bounce_stats")


test_classifies_what_next_hops_say.short = True


def test_classifies_each_recipient_by_what_it_was_told(flow):
    said = {"a": "550 5.1.1 user unknown", "b": "552 5.2.2 over quota"}
    peer = Peer(flow, rcpt=lambda x: said.get(x.rcpt[0], True), dot="554 5.7.1 the message contains a virus")
    daemon = Daemon(flow, text=f'gateway = "127.0.0.1:{peer.port}" generate_bounces = false')
    daemon.connect().mail([f"{n}@away.test" for n in "abcd"], body=HELLO)
    found = {b["local"]: (b["class"], b["stage"]) for b in wait_bounces(daemon, "B", 4)}
    expect_equal(found, {"a": ("10", "4"), "b": ("22", "4"), "c": ("53", "9"), "d": ("53", "9")}, "classes and stages")


def test_classifies_its_own_troubles(flow):
    peer = Peer(flow)
    peer.close()
    daemon = Daemon(flow, text=f'gateway = "127.0.0.1:{peer.port}" generate_bounces = false\n'
                    'retry_interval = "100ms" host_failure_retry = "100ms" message_expiration = "700ms"')
    daemon.connect().mail("to@away.test", body=HELLO)
    failed = wait_bounces(daemon, "B", 1)
    expect_equal([(b["class"], b["text"][:9]) for b in failed], [("24", "554 5.4.7")], "expired")
    expect_equal({b["class"] for b in bounces(daemon, "T")}, {"24"}, "no connection")


def test_leaves_deferred_recipients_out_when_told_to(flow):
    peer = Peer(flow, rcpt=lambda x: "451 4.3.0 later" if x.rcpt.startswith("later") else "550 5.1.1 no")
    daemon = Daemon(flow, text=f'log {{ log_transient_failures = false heartbeat = "20ms" }}\n'
                    f'gateway = "127.0.0.1:{peer.port}" retry_interval = "1h" generate_bounces = false')
    daemon.connect().mail(["later@away.test", "now@away.test"], body=HELLO)
    daemon.wait_lines("T", 1)
    wait_bounces(daemon, "B", 1)
    expect_equal([b["local"] for b in bounces(daemon)], ["now"], "recipients in the bouncelog")
    expect_equal(stats(daemon), {10: (1, 0, 0), 70: (0, 1, 0)}, "deferred, counted all the same")
    wait_until(lambda: re.search(r"^\d+@@@@M1$", (daemon.log / "bouncelog").read_text(), re.M), "a heartbeat")


def test_goes_by_the_rules_that_it_was_given(flow):
    path = flow.path / "rules"
    path.write_text('class 7 = "Our Own"\n# none but this\n7 5xx zebra\n')
    peer = Peer(flow, rcpt=lambda x: "550 5.1.1 zebras only" if x.rcpt.startswith("z") else "550 5.1.1 no such user")
    daemon = Daemon(flow, text=f'gateway = "127.0.0.1:{peer.port}" generate_bounces = false\nbounce_rules = "{path}"')
    daemon.connect().mail(["z@away.test", "x@away.test"], body=HELLO)
    found = {b["local"]: b["class"] for b in wait_bounces(daemon, "B", 2)}
    expect_equal(found, {"z": "7", "x": "1"}, "classes")
    expect_equal([(r["class"], r["name"]) for r in daemon.console("bounce_stats") if r["in_band"]],
                 [(1, "Undetermined"), (7, "Our Own")], "names in bounce_stats")


def test_says_what_is_wrong_with_rules(flow):
    path = flow.path / "rules"
    path.write_text("10 5.1.1\n11 5xx no such class\n10 * (\n")
    daemon = Daemon(flow, text=f'bounce_rules = "{path}"', start=False)
    for option in ([], ["--check"]):
        done = subprocess.run([flow.program("flywheeld"), *option, "--config", daemon.config], capture_output=True,
                              text=True, timeout=60)
        expect_equal(done.returncode, 1, "exit status")
        places = re.findall(rf"^{re.escape(str(path))}:(\d+): ", done.stderr, re.M)
        expect_equal(places, ["2", "3"], f"lines with errors in {done.stderr}")


# ---- what comes back as mail ----

DOMAINS = 'bounce_domains = ( "b.flow.test" ".c.flow.test" )'


def dsn(recipient="to@away.test", action="failed", status="5.1.1", said="smtp; 550 5.1.1 no such user"):
    """A notification as RFC 3464 has it, with lines that begin with dots."""
    return f"""From: MAILER-DAEMON@mx.away.test
Subject: Undelivered
Auto-Submitted: auto-replied
Content-Type: multipart/report; report-type=delivery-status; boundary="=_b"

--=_b

..sorry

--=_b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.away.test

Final-Recipient: rfc822; {recipient}
Action: {action}
Status: {status}
Diagnostic-Code: {said}

--=_b
Content-Type: message/rfc822

Subject: mine

--=_b--
""".replace("\n", "\r\n")


def give(daemon, recipients, body, sender="", source="127.0.0.1"):
    code, text = daemon.connect(source=source).mail(recipients, sender=sender, body=body)
    expect_equal(code, 250, f"reply ({text})")
    return text.split()[-1]


def last(daemon, kind="B"):
    """What the bouncelog said last: class, recipient, text."""
    b = bounces(daemon, kind)[-1]
    return b["class"], f"{b['local']}@{b['domain']}", b["text"]


def test_understands_bounces_that_come_back(flow):
    """What is answered 250 is in the log by then: nothing is waited for here."""
    daemon = Daemon(flow, text=DOMAINS)
    id_ = give(daemon, "bounces@b.flow.test", dsn())
    [b] = bounces(daemon)
    expect_equal([b[f] for f in FIELDS[1:2] + FIELDS[4:13] + FIELDS[14:]],
                 [id_, "B", "to", "away.test", "bounces", "b.flow.test", "default", "default", "21", "10", "127.0.0.1",
                  "550 5.1.1 no such user"], "fields")
    expect(int(b["size"]) > 300 and b["batch"] and b["connection"], f"size, batch, connection: {b}")
    give(daemon, "x@deep.c.flow.test", dsn(status="5.2.2", said="smtp; 552 mailbox full"), sender="who@ever.test")
    expect_equal(last(daemon), ("22", "to@away.test", "552 mailbox full"), "of a subdomain")
    # The recipient that we wrote into the address is right.
    for address in ("bounce+real=one.test", "bounce-real=one.test"):
        give(daemon, f"{address}@b.flow.test", dsn())
        expect_equal(last(daemon), ("10", "real@one.test", "550 5.1.1 no such user"), address)
    # Not yet failed; and not failed at all.
    give(daemon, "x@b.flow.test", dsn(action="delayed", status="4.4.1", said="smtp; 451 connection timed out"))
    expect_equal(last(daemon, "T"), ("24", "to@away.test", "451 connection timed out"), "delayed")
    give(daemon, "x@b.flow.test", dsn(action="delivered", status="2.0.0", said="smtp; 250 ok"))
    expect_equal(len(bounces(daemon)), 5, "lines")
    expect_equal(stats(daemon), {10: (0, 0, 3), 22: (0, 0, 1), 24: (0, 1, 0)}, "bounce_stats")
    expect_equal(daemon.counter("scheduler.out_of_band"), 6, "counted")
    expect_equal((daemon.lines("R"), daemon.queued()), ([], 0), "received or queued")


test_understands_bounces_that_come_back.short = True


def test_understands_what_is_no_notification(flow):
    daemon = Daemon(flow, text=DOMAINS)
    for body, found in (
            ("From: MAILER-DAEMON@x.test\r\nSubject: failure notice\r\n\r\nHi. This is the qmail-send program.\r\n\r\n"
             "<to@away.test>:\r\n552 5.2.2 over quota\r\n", ("22", "to@away.test")),
            ("From: Me <me@away.test>\r\nAuto-Submitted: auto-replied\r\nSubject: away\r\n\r\nuntil Monday\r\n",
             ("60", "me@away.test")),
            ("From: me@away.test\r\nSubject: unsubscribe\r\n\r\n", ("90", "me@away.test")),
            ("From: me@away.test\r\nSubject: hello\r\n\r\nnice weather\r\n", ("1", "me@away.test")),
            ("\r\n", ("1", "@")), ("", ("1", "@"))):
        give(daemon, "x@b.flow.test", body)
        expect_equal(last(daemon)[:2], found, f"class and recipient of {body!r}")
    give(daemon, "bounce+to=away.test@b.flow.test", "Subject: hello\r\n\r\n")
    expect_equal(last(daemon), ("1", "to@away.test", "hello"), "with the recipient in the address")


def test_takes_bounces_for_its_bounce_domains_only(flow):
    daemon = Daemon(flow, listener='bounce_domains = ( "b.flow.test" )\nrelay_hosts = ( "127.0.0.1" )\n'
                    'peer "127.0.0.3/32" { bounce_domains = ( "other.test" ) }')
    for source, taken, refused in (("127.0.0.2", "b.flow.test", "other.test"), ("127.0.0.3", "other.test", "b.flow.test")):
        client = daemon.connect(source=source)
        client.say("EHLO client.test", 250)
        client.say("MAIL FROM:<>", 250)
        client.say(f"RCPT TO:<x@{refused}>", 550)
        client.say(f"RCPT TO:<x@sub.{taken}>", 550)
        client.say(f"RCPT TO:<x@{taken}>", 250)
        client.say("DATA", 354)
        client.send(dsn())
        client.say(".", 250)
    expect_equal(len(bounces(daemon)), 2, "lines")
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    client.say("MAIL FROM:<>", 250)
    client.say("RCPT TO:<x@b.flow.test>", 250)
    client.say("RCPT TO:<x@away.test>", 452)


def test_logs_complaints(flow):
    daemon = Daemon(flow, text=DOMAINS)
    report = """From: <fbl@provider.test>
Content-Type: multipart/report; report-type=feedback-report; boundary=b

--b
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: Complaints/2.0 (x@y)
Original-Rcpt-To: <to@provider.test>

--b
Content-Type: message/rfc822

To: <list@away.test>

--b--
""".replace("\n", "\r\n")
    id_ = give(daemon, "fbl@b.flow.test", report)
    [line] = rows(daemon, file="fbllog")
    expect_equal(line[1:], [id_, "F", "to", "provider.test", "default", "default", "abuse", "provider.test",
                            "Complaints/2.0 (x@y)"], "fields")
    give(daemon, "fbl+real=one.test@b.flow.test", report)
    expect_equal(rows(daemon, file="fbllog")[-1][3:5], ["real", "one.test"], "the recipient in the address")
    expect_equal(bounces(daemon), [], "bounces")
    expect_equal(daemon.counter("scheduler.feedback_reports"), 2, "counted")


def test_answers_when_the_log_agent_has_written_it(flow):
    """While the bouncelog takes nothing, no bounce is answered; nor lost."""
    log = flow.path / "full"
    log.mkdir()
    (log / "bouncelog").symlink_to("/dev/full")
    daemon = Daemon(flow, text=DOMAINS, log=log)
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    client.say("MAIL FROM:<>", 250)
    client.say("RCPT TO:<x@b.flow.test>", 250)
    client.say("DATA", 354)
    client.send(dsn() + ".\r\n")
    wait_until(lambda: daemon.counter("log.write_errors") >= 2, "writes that fail")
    client.socket.settimeout(0.1)
    expect_equal(client.reply()[0], 0, "a reply before the line is written")
    # Others are served meanwhile.
    expect_equal(daemon.connect().say("NOOP")[0], 250, "reply")
    (log / "bouncelog").unlink()
    daemon.console("reopen", "logs")
    wait_until(lambda: len(bounces(daemon)) == 1, "the line in the new file")
    client = daemon.connect()
    expect_equal(client.mail("x@b.flow.test", sender="", body=dsn())[0], 250, "reply")
    expect_equal(len(bounces(daemon)), 2, "lines")


def test_understands_its_own_notifications(flow):
    """The notification of one flywheel goes to the bounce domain of another."""
    back = Daemon(flow, name="back", text=DOMAINS)
    bad = Peer(flow, rcpt="552 5.2.2 no room left: over quota")
    daemon = Daemon(flow, text=f'gateway = "127.0.0.1:{bad.port}"\n'
                    f'domain "b.flow.test" {{ gateway = "127.0.0.1:{back.port}" }}')
    give(daemon, "to@away.test", HELLO, sender="list@b.flow.test")
    wait_bounces(back, "B", 1)
    expect_equal(last(back), ("22", "to@away.test", "552 5.2.2 no room left: over quota"), "at the other")
    wait_bounces(daemon, "B", 1)
    expect_equal(last(daemon), ("22", "to@away.test", "552 5.2.2 no room left: over quota"), "in band")


def test_understands_postfix(flow):
    """What Postfix writes when its next hop refuses a recipient."""
    said = {"gone": "550 5.1.1 no such user", "full": "552 5.2.2 mailbox is full"}
    peer = Peer(flow, rcpt=lambda x: said.get(x.rcpt.split("@")[0], True))
    postfix = Postfix(flow, relay=peer.port)
    daemon = Daemon(flow, text=DOMAINS)
    Client(postfix.port).mail([f"{name}@away.test" for name in said], sender="list@b.flow.test", body=HELLO)
    for mail in peer.wait(1):
        give(daemon, mail.recipients, mail.data.replace(b"\r\n.", b"\r\n.."))
    found = {b["local"]: (b["class"], b["domain"], b["from_local"]) for b in bounces(daemon)}
    expect_equal(found, {"gone": ("10", "away.test", "list"), "full": ("22", "away.test", "list")}, "recipients")
