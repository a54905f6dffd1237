"""SMTP extensions, as clients and next hops use them: chunks, notifications."""

import base64
import email
import random
import re
import subprocess

from flow import Daemon, Skip, can_connect, expect, expect_equal, free_port, wait_until
from peer import Peer
from test_bounces import fields
from test_real_peers import Postfix, swaks
from test_smtp_input import HELLO, SECOND, SMUGGLING, envelope, serve, still_serves

BACKENDS = ["uring", "epoll", "poll"]


def replies(client, count):
    return [client.reply() for _ in range(count)]


def chunks(data, sizes):
    """BDAT commands for all of `data`, cut at sizes; the last one is LAST."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at:at + size])
        at += size
    pieces.append(data[at:])
    return [b"BDAT %d%s\r\n" % (len(p), b" LAST" if p is pieces[-1] else b"") + p for p in pieces]


# ---- BDAT ----


def test_takes_chunks_of_any_size(flow):
    """Cut anywhere, sent at once or one by one: the next hop has it as it was."""
    peer, daemon = serve(flow)
    client = daemon.connect()
    body = b"Subject: chunks\r\n\r\n.\r\n..\r\n.dot\r\n\r\nMAIL FROM:<a@b.test>\r\n.\r\nBDAT 5\r\n" + b"z" * 900 + b"\r\n.\r\n"
    rng = random.Random(4711)
    sent = 0
    for cut in range(1, 60, 2):
        pieces = chunks(body, [cut] * rng.randrange(1, 4))
        envelope(client)
        if cut % 4 == 1:
            client.send(b"".join(pieces))
            found = replies(client, len(pieces))
        else:
            found = []
            for piece in pieces:
                client.send(piece)
                found.append(client.reply())
        expect_equal([code for code, _ in found], [250] * len(pieces), f"replies to chunks of {cut}: {found}")
        sent += 1
    for mail in peer.wait(sent):
        expect(mail.data.endswith(body), f"changed: {mail.data!r}")
    still_serves(peer, daemon, client)
    expect_equal(daemon.counter("scheduler.smtp_accepted"), sent + 1, "messages accepted")


test_takes_chunks_of_any_size.backends = BACKENDS
test_takes_chunks_of_any_size.short = True


def test_takes_large_chunks(flow):
    peer, daemon = serve(flow, listener='max_message_size = "2M"')
    client = daemon.connect()
    line = b"." + b"0123456789abcde" * 4 + b"\r\n"
    body = b"Subject: large\r\n\r\n" + line * 20000
    envelope(client)
    client.send(b"".join(chunks(body, [100000, 1, 700000])))
    expect_equal([c for c, _ in replies(client, 4)], [250] * 4, "replies")
    mail = peer.wait(1)[0]
    expect(mail.data.endswith(body) and mail.data.count(line) == 20000, "it changed")
    # Too large: read to its end, refused, and the next one is taken.
    envelope(client)
    client.send(b"".join(chunks(body * 2, [1500000])))
    expect_equal([c for c, _ in replies(client, 2)], [250, 552], "replies")
    still_serves(peer, daemon, client)


def test_never_takes_chunks_for_commands(flow):
    """What a client sends behind a refused BDAT is no mail and no command."""
    peer, daemon = serve(flow)
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    trap = b"MAIL FROM:<evil@sender.test>\r\nRCPT TO:<victim@good.test>\r\nBDAT 5 LAST\r\nevil!"
    client.send(b"BDAT %d LAST\r\n" % len(trap) + trap + b"NOOP\r\n")
    expect_equal([c for c, _ in replies(client, 2)], [503, 250], "replies without a transaction")
    client.send(b"MAIL FROM:<from@sender.test>\r\nRCPT TO:<nobody@>\r\nBDAT %d\r\n" % len(trap) + trap
                + b"BDAT %d LAST\r\n" % len(trap) + trap + b"NOOP\r\n")
    expect_equal([c for c, _ in replies(client, 5)][2:], [554, 503, 250], "replies without a recipient")
    for line in (b"BDAT\r\n", b"BDAT %d FIRST\r\n" % len(trap), b"BDAT %d LAST\n" % len(trap), b"BDAT\t5\r\n"):
        lost = daemon.connect()
        envelope(lost)
        lost.send(line + trap)
        code, text = lost.reply()
        expect(code in (500, 501), f"{line!r}: {code} {text}")
        expect(lost.ended(), f"{line!r} did not close")
        lost.close()
    still_serves(peer, daemon, client)
    expect_equal({r for m in peer.mails for r in m.recipients}, {"next@good.test"}, "recipients at the peer")


def test_refuses_messages_smuggled_in_chunks(flow):
    """Every sequence that ends a message somewhere, with a chunk's end at each of its places."""
    peer, daemon = serve(flow)
    client = daemon.connect()
    for sequence in SMUGGLING:
        for cut in range(len(sequence) + 1):
            data = b"Subject: one\r\n\r\nbody" + sequence + SECOND
            envelope(client)
            client.send(b"".join(chunks(data, [20 + cut])))
            found = replies(client, 2)
            expect(found[1][0] in (550, 503) and 550 in (found[0][0], found[1][0]), f"{sequence!r}: {found}")
            client.say("NOOP", 250)
    still_serves(peer, daemon, client)
    expect_equal([m.recipients for m in peer.mails], [["next@good.test"]], "recipients at the peer")


test_refuses_messages_smuggled_in_chunks.short = True


def test_makes_one_harmless_message_of_chunks_if_told_to(flow):
    """The end of DATA is as harmless in a chunk as what lax servers take for it."""
    peer = Peer(flow, ends=(b"\r\n.\r\n", b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r.\n"))
    daemon = Daemon(flow, sink_port=peer.port, listener='bare_lf = "accept_as_data"')
    client = daemon.connect()
    sequences = [s for s in SMUGGLING if b"\0" not in s] + [b"\r\n.\r\n"]
    count = 0
    for sequence in sequences:
        for cut in range(len(sequence) + 1):
            envelope(client)
            client.send(b"".join(chunks(b"Subject: one\r\n\r\nbody" + sequence + SECOND, [20 + cut])))
            expect_equal([c for c, _ in replies(client, 2)], [250, 250], f"replies to {sequence!r}")
            count += 1
    mails = peer.wait(count)
    for mail in mails:
        expect_equal(mail.recipients, ["to@good.test"], "recipients")
        expect(b"victim" in mail.data and b"smuggled" in mail.data, f"cut: {mail.data!r}")
        expect(not re.search(rb"[^\r]\n|\r[^\n]", mail.data), f"a bare CR or LF went out: {mail.data!r}")
    daemon.wait_for_rest()
    expect_equal(len(peer.mails), count, "messages at the peer")


def test_keeps_nothing_of_chunks_that_do_not_end(flow):
    peer, daemon = serve(flow)
    for rest in (b"RSET\r\n", b"EHLO again.test\r\n"):
        client = daemon.connect()
        envelope(client)
        client.send(b"BDAT 3\r\na\r\n" + rest + b"BDAT 3 LAST\r\nb\r\n")
        expect_equal([c for c, _ in replies(client, 3)], [250, 250, 503], f"replies with {rest!r}")
        client.close()
    client = daemon.connect()
    envelope(client)
    client.send(b"BDAT 10 LAST\r\n123456789")
    client.close()
    daemon.wait_for_clients()
    still_serves(peer, daemon)
    expect_equal(len(peer.mails), 1, "messages at the peer")
    expect_equal(daemon.connect().mail("to@good.test", body=HELLO)[0], 250, "mail by DATA")


# ---- DSN ----


class Notices:
    """Mail for far.test goes to `far`, notices come to `home`."""

    def __init__(self, flow, far_port):
        self.home = Peer(flow)
        self.daemon = Daemon(flow, text=f'''
domain "sender.test" {{ gateway = "127.0.0.1:{self.home.port}" }}
gateway = "127.0.0.1:{far_port}"''')

    def send(self, *recipients, mail="", body=HELLO):
        """`recipients`: address and parameters."""
        client = self.daemon.connect()
        client.say("EHLO client.test", 250)
        client.say(f"MAIL FROM:<from@sender.test>{mail}", 250)
        for address, parameters in recipients:
            client.say(f"RCPT TO:<{address}>{parameters}", 250)
        client.say("DATA", 354)
        client.send(body)
        client.say(".", 250)
        client.close()

    def report(self, count=1):
        """The last notice's mail, and its delivery-status groups."""
        mail = email.message_from_bytes(self.home.wait(count)[count - 1].data)
        expect_equal([d for p in mail.walk() for d in p.defects], [], "defects")
        return mail, fields(mail.get_payload()[1])

    def no_more(self, count):
        self.daemon.wait_for_rest()
        expect_equal(len(self.home.mails), count, "notices")


def test_hands_notification_parameters_on(flow):
    peer = Peer(flow, offers=("PIPELINING", "DSN", "SIZE 0"))
    notices = Notices(flow, peer.port)
    notices.send(("to@far.test", " NOTIFY=SUCCESS,DELAY ORCPT=rfc822;old+2Bname@far.test"), ("b@far.test", ""),
                 mail=" RET=HDRS ENVID=QQ314159")
    peer.wait(1)
    expect(peer.said("MAIL")[0][1].endswith("> SIZE=" + str(sized(peer)) + " RET=HDRS ENVID=QQ314159"), "MAIL")
    lines = sorted(line for _, line in peer.said("RCPT"))
    expect_equal(lines, ["RCPT TO:<b@far.test>",
                         "RCPT TO:<to@far.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;old+2Bname@far.test"], "RCPT")
    notices.no_more(0)


def sized(peer):
    return int(re.search(r"SIZE=(\d+)", peer.said("MAIL")[0][1])[1])


def test_keeps_notification_parameters_over_a_kill(flow):
    """They are in the spool: a notice after a restart still obeys them."""
    peer = Peer(flow, rcpt=lambda s: "550 5.1.1 nobody" if s.rcpt.startswith("no") else True, offers=())
    notices = Notices(flow, peer.port)
    notices.daemon.console("suspend", "domain", "far.test")
    notices.send(("no@far.test", " NOTIFY=FAILURE ORCPT=rfc822;one+2Btwo@old.test"),
                 ("nothing@far.test", " NOTIFY=NEVER"), mail=" RET=FULL ENVID=kept+20it")
    notices.daemon.kill()
    notices.daemon.start()
    notices.daemon.console("resume", "domain", "far.test")
    mail, groups = notices.report()
    expect_equal(groups[0]["Original-Envelope-Id"], "kept it", "Original-Envelope-Id")
    expect_equal([(g["Original-Recipient"], g["Final-Recipient"], g["Action"]) for g in groups[1:]],
                 [("rfc822; one+two@old.test", "rfc822; no@far.test", "failed")], "recipients")
    expect_equal(mail.get_payload()[2].get_content_type(), "message/rfc822", "what came back")
    expect("hello" in mail.get_payload()[2].get_payload()[0].get_payload(), "the body did not come back")
    notices.no_more(1)


def test_tells_of_failures_as_the_sender_asked(flow):
    peer = Peer(flow, offers=(), rcpt="550 5.1.1 nobody")
    notices = Notices(flow, peer.port)
    notices.send(("a@far.test", " NOTIFY=NEVER"), ("b@far.test", " NOTIFY=SUCCESS"), ("c@far.test", " NOTIFY=DELAY"))
    notices.daemon.wait_lines("P", 3)
    notices.no_more(0)
    notices.send(("a@far.test", " NOTIFY=NEVER"), ("b@far.test", " NOTIFY=FAILURE"), ("c@far.test", ""),
                 mail=" RET=HDRS")
    mail, groups = notices.report()
    expect_equal([g["Final-Recipient"] for g in groups[1:]], ["rfc822; b@far.test", "rfc822; c@far.test"], "recipients")
    expect_equal(mail.get_payload()[2].get_content_type(), "text/rfc822-headers", "what came back")
    notices.no_more(1)


def test_says_what_was_relayed_where_nobody_else_will(flow):
    peer = Peer(flow, offers=("PIPELINING",), rcpt=lambda s: "550 5.1.1 nobody" if s.rcpt.startswith("no") else True)
    notices = Notices(flow, peer.port)
    notices.send(("a@far.test", " NOTIFY=SUCCESS"), ("b@far.test", ""), ("c@far.test", " NOTIFY=FAILURE"))
    mail, groups = notices.report()
    expect_equal([(g["Final-Recipient"], g["Action"], g["Status"]) for g in groups[1:]],
                 [("rfc822; a@far.test", "relayed", "2.0.0")], "recipients")
    expect_equal(mail["Subject"], "Your message was handed on", "Subject")
    # Both at once: one notice.
    notices.send(("a@far.test", " NOTIFY=SUCCESS"), ("no@far.test", " NOTIFY=SUCCESS,FAILURE"))
    mail, groups = notices.report(2)
    expect_equal(sorted((g["Final-Recipient"], g["Action"]) for g in groups[1:]),
                 [("rfc822; a@far.test", "relayed"), ("rfc822; no@far.test", "failed")], "recipients of both")
    notices.no_more(2)


def test_returns_a_message_of_8_bits_whole(flow):
    peer = Peer(flow, offers=(), rcpt="550 5.1.1 nobody")
    notices = Notices(flow, peer.port)
    body = b"Subject: whole\r\n\r\n" + "Grüße\r\n".encode() + b"..dot\r\n" + b"z" * 2000 + b"\r\n"
    notices.send(("a@far.test", ""), mail=" RET=FULL BODY=8BITMIME", body=body)
    mail = notices.home.wait(1)[0]
    expect(b"Subject: whole\r\n\r\n" + "Grüße\r\n".encode() + b".dot\r\n" + b"z" * 2000 + b"\r\n" in mail.data,
           f"not whole: {mail.data[-3000:]!r}")
    expect_equal(notices.report()[0].get_content_type(), "multipart/report", "type")
    expect("BODY=8BITMIME" in notices.home.said("MAIL")[0][1], "MAIL without BODY=8BITMIME")


def test_postfix_tells_of_what_it_took(flow):
    """Postfix has DSN: it says what became of the message, with what the sender asked us."""
    postfix = Postfix(flow)
    daemon = Daemon(flow, sink_port=postfix.port)
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    client.say("MAIL FROM:<from@sender.test> RET=HDRS ENVID=QQ314159", 250)
    client.say("RCPT TO:<good@box.test> NOTIFY=SUCCESS ORCPT=rfc822;old@box.test", 250)
    client.say("DATA", 354)
    client.send(HELLO)
    client.say(".", 250)
    postfix.take("box", 1)
    report = postfix.take("home", 1)[0].parse()
    groups = fields(report.get_payload()[1])
    expect_equal(groups[0]["Original-Envelope-Id"], "QQ314159", "Original-Envelope-Id")
    expect_equal((groups[1]["Original-Recipient"].replace(" ", ""), groups[1]["Action"]),
                 ("rfc822;old@box.test", "delivered"), "recipient")
    daemon.wait_for_rest()
    expect_equal(daemon.counter("scheduler.bounces"), 0, "notices of ours")
    postfix.check()


def test_postfix_sends_what_it_wants_to_be_told(flow):
    """Postfix as the client hands RET, ENVID, NOTIFY and ORCPT on to us; what we tell, it takes."""
    peer = Peer(flow, offers=())
    notices = Notices(flow, peer.port)
    postfix = Postfix(flow, relay=notices.daemon.port)
    postfix.send("-N", "success,failure", "-V", "QQ2718", "to@far.test", text=b"Subject: told\n\nhello\n")
    peer.wait(1)
    _, groups = notices.report()
    expect_equal((groups[0]["Original-Envelope-Id"], groups[1]["Action"], groups[1]["Original-Recipient"]),
                 ("QQ2718", "relayed", "rfc822; to@far.test"), "notice")
    postfix.check()


# ---- AUTH ----

# Of "open sesame": SHA-512-crypt, Argon2id, yescrypt.
USERS = """# users of the test
sha:$6$saltsalt$e/5XKibXPLqVcfjpD.ouauaJrAOL5V0uo80Lt7n7EbRdRiCx3HbQ90yjOHr.G0T.mx79PEMRy8nmtr0qSYhQp1
argon:$argon2id$v=19$m=1024,t=2,p=1$c2FsdHNhbHQ$tYDbcNuV220VTU6Ii/eTPA
yes:$y$j9T$saltsaltsalt$b1KPsJq/OEd.3MwEU9eWyKlNNoW3sAIZKTpBLLPjsR6
"""


def serve_users(flow, listener="", options='allow_plain_auth = true', **more):
    users = flow.path / "users"
    users.write_text(USERS)
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, listener=f'auth_file = "{users}"\nrelay_hosts = ( )\n{options}\n'
                    + listener, **more)
    return peer, daemon


def credentials(*words):
    return base64.b64encode("\0".join(words).encode()).decode()


def test_lets_users_relay(flow):
    peer, daemon = serve_users(flow)
    to = ("--to", "to@far.test")
    swaks(daemon.port, *to, wanted=24)
    sent = 0
    for user in ("sha", "argon", "yes"):
        for mechanism in ("PLAIN", "LOGIN"):
            swaks(daemon.port, *to, "--auth", mechanism, "--auth-user", user, "--auth-password", "open sesame")
            sent += 1
            swaks(daemon.port, *to, "--auth", mechanism, "--auth-user", user, "--auth-password", "shut", wanted=28)
    mails = peer.wait(sent)
    expect(all(re.search(rb"with ESMTPA\s", m.data) for m in mails), "no ESMTPA in Received")
    expect_equal(daemon.counter("scheduler.smtp_auth_granted"), sent, "granted")
    expect_equal(daemon.counter("scheduler.smtp_auth_failed"), sent, "failed")
    wait_until(lambda: len(daemon.lines(file="acctlog")) == 2 * sent, "lines in acctlog")
    expect_equal({tuple(line[1:]) for line in daemon.lines(file="acctlog")},
                 {("N", "esmtp", "127.0.0.1", u, g) for u in ("sha", "argon", "yes") for g in "01"}, "acctlog")
    # The first was refused for another reason.
    refused = [line[-1] for line in daemon.wait_lines("J", 1 + sent, "rejectlog") if line[7] == "535"]
    expect_equal(sorted(set(refused)), [f"5.7.8 Authentication credentials invalid: user {u}"
                                        for u in ("argon", "sha", "yes")], "rejectlog")
    for file in daemon.log.iterdir():
        expect("shut" not in file.read_text() and "sesame" not in file.read_text(), f"a password in {file}")


test_lets_users_relay.short = True


def test_takes_passwords_only_where_nobody_listens(flow):
    _, daemon = serve_users(flow, options="")
    client = daemon.connect()
    expect("AUTH" not in client.say("EHLO client.test", 250)[1], "AUTH is offered without TLS")
    client.say(f"AUTH PLAIN {credentials('', 'sha', 'open sesame')}", 538)
    expect_equal(daemon.counter("scheduler.smtp_auth_granted"), 0, "granted")


def test_takes_mail_only_from_users_if_told_to(flow):
    peer, daemon = serve_users(flow, 'require_authentication = true\nrelay_domains = ( "*" )')
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    client.say("MAIL FROM:<from@sender.test>", 530)
    client.say(f"AUTH PLAIN {credentials('', 'argon', 'open sesame')}", 235)
    expect_equal(client.mail("to@good.test", body=HELLO)[0], 250, "mail of a user")
    peer.wait(1)


def test_limits_failures_of_one_address(flow):
    """The next connection is not even tried, until the minute is over; other addresses are."""
    _, daemon = serve_users(flow, 'max_auth_failures = "2/hour"', schedulers=1)
    bad, good = credentials("", "sha", "shut"), credentials("", "sha", "open sesame")
    for _ in range(2):
        client = daemon.connect()
        client.say("EHLO client.test", 250)
        client.say(f"AUTH PLAIN {bad}", 535)
        client.close()
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    client.say(f"AUTH PLAIN {good}", 421)
    expect(client.ended(), "421 did not close")
    other = daemon.connect(source="127.0.0.2")
    other.say("EHLO client.test", 250)
    other.say(f"AUTH PLAIN {good}", 235)
    expect_equal(daemon.counter("scheduler.smtp_auth_limited"), 1, "limited")


def test_says_that_users_cannot_be_read(flow):
    """At the start, and to whom it concerns; the file may come later."""
    _, daemon = serve_users(flow, start=False)
    users = flow.path / "users"
    users.rename(flow.path / "away")
    daemon.start()
    expect("warning: " in daemon.output() and "users\" cannot be read: No such file" in daemon.output(), "no warning")
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    client.say(f"AUTH PLAIN {credentials('', 'sha', 'open sesame')}", 454)
    (flow.path / "away").rename(users)
    client.say(f"AUTH PLAIN {credentials('', 'sha', 'open sesame')}", 235)
    wait_until(lambda: any("auth_file" in "@".join(line) for line in daemon.lines(file="paniclog")), "a line in paniclog")


# ---- XCLIENT, PROXY ----


def test_believes_proxies_by_xclient(flow):
    """Relaying, logs and options are those of the client that is told of."""
    peer, daemon = serve(flow, listener='''xclient_hosts = ( "127.0.0.1" )
relay_hosts = ( "192.0.2.7" )
peer "198.51.100.0/24" { banner = "for the others" relay_domains = ( "good.test" ) xclient_hosts = ( "127.0.0.1" ) }''')
    to = ("--to", "to@far.test")
    swaks(daemon.port, *to, wanted=24)
    swaks(daemon.port, *to, "--xclient-addr", "192.0.2.8", wanted=24)
    swaks(daemon.port, *to, "--xclient-addr", "192.0.2.7", "--xclient-helo", "told.test", "--xclient-port", 4711)
    expect(b"from told.test ([192.0.2.7])" in peer.wait(1)[0].data, "not in the trace header")
    text = swaks(daemon.port, "--to", "to@good.test", "--xclient-addr", "198.51.100.1", "--xclient-name", "x.test",
                 "--xclient-proto", "ESMTP")
    expect("220 flow.test for the others" in text, "the options are not the client's")
    expect_equal(sorted(line[9] for line in daemon.wait_lines("R", 2)), ["192.0.2.7", "198.51.100.1"],
                 "addresses in R lines")
    expect_equal(sorted(line[5] for line in daemon.wait_lines("J", 2, "rejectlog")), ["127.0.0.1", "192.0.2.8"],
                 "in J lines")
    daemon.wait_for_clients()
    other = daemon.connect(source="127.0.0.2")
    expect("XCLIENT" not in other.say("EHLO client.test", 250)[1], "XCLIENT is offered to all")
    other.say("XCLIENT ADDR=192.0.2.7", 550)


def proxied(daemon, header, source="127.0.0.1"):
    client = daemon.connect(greet=False, source=source)
    client.send(header)
    return client


V2 = b"\r\n\r\n\0\r\nQUIT\n"


def test_believes_proxies_by_their_header(flow):
    peer, daemon = serve(flow, listener='''proxy_protocol = true
xclient_hosts = ( "127.0.0.1" )
relay_hosts = ( "192.0.2.7" "2001:db8::/32" )''')
    headers = [b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\r\n",
               b"PROXY TCP6 2001:db8::7 ::1 4711 25\r\n",
               V2 + b"\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x12\x67\0\x19"]
    for count, header in enumerate(headers):
        client = proxied(daemon, header)
        expect_equal(client.reply()[0], 220, "greeting")
        expect_equal(client.mail("to@far.test", body=HELLO)[0], 250, f"mail behind {header!r}")
        client.close()
        peer.wait(count + 1)
    expect_equal(sorted(line[9] for line in daemon.wait_lines("R", 3)), ["192.0.2.7", "192.0.2.7", "2001:db8::7"],
                 "peers")
    # Who is told of is not a proxy; a health check is one.
    client = proxied(daemon, b"PROXY TCP4 192.0.2.8 198.51.100.1 4711 25\r\n")
    expect_equal(client.reply()[0], 220, "greeting")
    expect("XCLIENT" not in client.say("EHLO client.test", 250)[1], "XCLIENT is offered")
    client.say("MAIL FROM:<from@sender.test>", 250)
    client.say("RCPT TO:<to@far.test>", 550)
    client = proxied(daemon, V2 + b"\x20\0\0\0")
    expect_equal(client.reply()[0], 220, "greeting of a health check")
    for header, source in ((b"EHLO client.test\r\n", "127.0.0.1"), (b"PROXY TCP4 x\r\n", "127.0.0.1"),
                           (headers[0], "127.0.0.2"), (headers[0] + b"EHLO early.test\r\n", "127.0.0.1")):
        client = proxied(daemon, header, source)
        expect_equal(client.reply()[0], 554, f"reply to {header!r} of {source}")
        expect(client.ended(), "554 did not close")
    expect_equal(daemon.counter("scheduler.smtp_refused_proxy"), 3, "refused")


test_believes_proxies_by_their_header.short = True


# ---- to next hops ----

DOTS = b"Subject: dots\r\n\r\n.\r\n..\r\n.dot\r\n\r\nplain\r\n" + b"." * 900 + b"\r\n" + (b"." + b"x" * 70 + b"\r\n") * 3000


def test_sends_chunks_where_they_are_offered(flow):
    plain = Peer(flow, offers=("PIPELINING",))
    for offers in (("PIPELINING", "CHUNKING"), ("CHUNKING",)):
        peer = Peer(flow, offers=offers, rcpt=lambda s: "550 no" if s.rcpt.startswith("no") else True,
                    dot=lambda s: "554 5.6.0 not that" if s.sender.startswith("bad") else True)
        daemon = Daemon(flow, sink_port=peer.port, name=len(offers), text=f'''max_outbound_connections = 1
domain "plain.test" {{ gateway = "127.0.0.1:{plain.port}" }}
domain "lines.test" {{ use_chunking = false }}''')
        client = daemon.connect()
        sent = re.sub(rb"(?m)^\.", b"..", DOTS)
        client.mail(["no@chunk.test", "a@chunk.test", "b@chunk.test"], sender="", body=sent)
        client.mail("no@chunk.test", sender="", body=sent)
        client.mail("a@chunk.test", sender="bad@chunk.test", body=sent)
        client.mail("c@chunk.test", sender="", body=HELLO)
        client.mail("a@plain.test", sender="", body=sent)
        mails = peer.wait(2)
        daemon.wait_for_rest()
        expect_equal(len(peer.said("DATA")), 0, "DATA to who offers CHUNKING")
        client.mail("a@lines.test", sender="", body=sent)
        wait_until(lambda: len(peer.said("DATA")) == 1, "DATA where chunks are not wanted")
        wait_until(lambda: any(m.recipients == ["a@lines.test"] and m.data.endswith(DOTS) for m in peer.mails),
                   "the body by lines")
        expect(mails[0].data.endswith(DOTS), "the body changed")
        expect_equal(mails[0].recipients, ["a@chunk.test", "b@chunk.test"], "recipients")
        expect(any(m.recipients == ["c@chunk.test"] and m.data.endswith(HELLO.encode()) for m in peer.wait(2)), "c")
        expect(len(peer.said("BDAT")) >= 3, "BDAT")
    expect(plain.wait(2)[0].data.endswith(DOTS), "the body by DATA changed")
    expect_equal(len(plain.said("BDAT")), 0, "BDAT to who does not offer it")


def test_postfix_takes_chunks(flow):
    postfix = Postfix(flow)
    daemon = Daemon(flow, sink_port=postfix.port)
    daemon.connect().mail("good@box.test", body=re.sub(rb"(?m)^\.", b"..", DOTS))
    expect_equal(postfix.take("box", 1)[0].body, DOTS.partition(b"\r\n\r\n")[2], "body")
    flow.load(daemon, "--messages", 100, "--domains", 3)
    postfix.take("load", 100)
    postfix.check()


def test_sends_or_bounces_8_bits(flow):
    peer = Peer(flow, offers=("PIPELINING",))
    daemon = Daemon(flow, sink_port=peer.port, text='domain "strict.test" { downgrade_8bit = "bounce" }')
    body = "Subject: x\r\n\r\nGrüße\r\n".encode()
    daemon.connect().mail(["to@strict.test", "to@lax.test"], sender="", body=body)
    expect(peer.wait(1)[0].data.endswith(body), "the body changed")
    line = daemon.wait_lines("P", 1)[0]
    expect_equal((line[5], line[13][:9]), ("strict.test", "554 5.6.3"), "P line")
    daemon.connect().mail("to@strict.test", sender="", body=HELLO)
    peer.wait(2)


def test_aiosmtpd_takes_smtputf8_and_others_do_not(flow):
    """RFC 6531: what needs SMTPUTF8 fails with 5.6.7 where it is not offered."""
    port, box = free_port(), flow.path / "aiosmtpd"
    program = subprocess.Popen(["/usr/bin/python3", "-m", "aiosmtpd", "-n", "-u", "-l", f"127.0.0.1:{port}", "-c",
                                "aiosmtpd.handlers.Mailbox", str(box)], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    flow.closers.append(lambda: (program.kill(), program.wait()))
    wait_until(lambda: can_connect(port) or program.poll() is not None, "aiosmtpd to listen")
    if program.poll() is not None:
        raise Skip("aiosmtpd is not installed")
    old = Peer(flow, offers=("8BITMIME",))
    daemon = Daemon(flow, sink_port=port, text=f'domain "old.test" {{ gateway = "127.0.0.1:{old.port}" }}')
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    client.say("MAIL FROM:<> SMTPUTF8 BODY=8BITMIME", 250)
    client.say("RCPT TO:<jürgen@new.test>", 250)
    client.say("RCPT TO:<jürgen@old.test>", 250)
    client.say("DATA", 354)
    client.send("Subject: Grüße\r\n\r\nGrüße\r\n")
    client.say(".", 250)
    taken = wait_until(lambda: list((box / "new").glob("*")) if box.exists() else [], "a message at aiosmtpd")
    expect("Grüße".encode() in taken[0].read_bytes(), "the body changed")
    line = daemon.wait_lines("P", 1)[0]
    expect_equal((line[5], line[13][:9]), ("old.test", "550 5.6.7"), "P line")
