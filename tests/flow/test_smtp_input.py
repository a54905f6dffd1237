"""What clients may do to the SMTP listener, by mistake or on purpose, and what they are told."""

import email.utils
import random
import re
import time

from flow import PATIENCE, Client, Daemon, expect, expect_equal, wait_until
from peer import Peer

BACKENDS = ["uring", "epoll", "poll"]
HELLO = "Subject: hello\r\n\r\nhello\r\n"


def serve(flow, **options):
    peer = Peer(flow)
    return peer, Daemon(flow, sink_port=peer.port, **options)


def still_serves(peer, daemon, *done):
    """One more message goes through, and nobody is left behind but those that are done and close."""
    for client in done:
        client.close()
    before = len(peer.mails)
    client = daemon.connect()
    expect_equal(client.mail("next@good.test", body=HELLO)[0], 250, "reply to one more message")
    client.say("QUIT", 221)
    client.close()
    peer.wait(before + 1)
    daemon.wait_for_clients()
    daemon.wait_for_rest()


def envelope(client, recipient="to@good.test"):
    client.say("EHLO client.test", 250)
    client.say("MAIL FROM:<from@sender.test>", 250)
    client.say(f"RCPT TO:<{recipient}>", 250)


# ---- the dialogue ----


def test_greets_and_offers_what_it_has(flow):
    _, daemon = serve(flow, listener='banner = "no fax please" max_message_size = "1M"')
    client = daemon.connect(greet=False)
    expect_equal(client.reply(), (220, "flow.test no fax please"), "banner")
    offers = client.say("EHLO client.test", 250)[1].split("\n")
    expect_equal(offers[0].split()[0], "flow.test", "name in EHLO")
    for offer in ("PIPELINING", "SIZE 1048576", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8", "HELP"):
        expect(offer in offers, f"{offer} is not offered: {offers}")
    expect_equal(client.say("HELO client.test", 250)[1], "flow.test", "reply to HELO")
    client.say("QUIT", 221)
    expect(client.ended(), "QUIT did not close")


def test_answers_commands_that_move_no_mail(flow):
    _, daemon = serve(flow)
    client = daemon.connect()
    for line, code in (("HELP", 214), ("HELP MAIL", 214), ("NOOP", 250), ("NOOP with words", 250), ("RSET", 250),
                       ("VRFY somebody", 252), ("EXPN list", 502), ("EHLO client.test", 250), ("noop", 250),
                       ("VRFY", 501), ("RSET now", 501), ("QUIT now", 501)):
        client.say(line, code)
    client.say("QUIT", 221)


def test_refuses_what_is_no_command(flow):
    peer, daemon = serve(flow)
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    for line, code in (("XYZZY", 500), ("", 500), (" ", 500), ("MAILFROM:<a@b.test>", 500), ("STARTTLS", 502),
                       ("AUTH PLAIN", 502), ("BDAT 2 LAST\r\n", 503), ("EHLO", 501), ("MAIL", 501),
                       ("MAIL FROM:a b", 501), ("MAIL FROM:<a@b.test> SIZE=x", 501),
                       ("MAIL FROM:<a@b.test> NONSENSE=1", 555), ("MAIL FROM:<a@b.test> BODY=9BIT", 501),
                       ("GET / HTTP/1.1", 500)):
        found, text = client.say(line)
        expect_equal(found, code, f"reply to {line!r} ({text})")
    expect_equal(client.mail("to@good.test", body=HELLO, ehlo=False)[0], 250, "mail after nonsense")
    peer.wait(1)


def test_refuses_commands_in_the_wrong_order(flow):
    peer, daemon = serve(flow)
    client = daemon.connect()
    for line in ("MAIL FROM:<a@b.test>", "RCPT TO:<a@b.test>", "DATA"):
        client.say(line, 503)
    client.say("EHLO client.test", 250)
    client.say("RCPT TO:<a@good.test>", 503)
    client.say("DATA", 503)
    client.say("MAIL FROM:<a@b.test>", 250)
    client.say("MAIL FROM:<a@b.test>", 503)
    client.say("DATA", 503)
    client.say("RCPT TO:<a@good.test>", 250)
    client.say("RSET", 250)
    client.say("DATA", 503)
    client.say("MAIL FROM:<a@b.test>", 250)
    client.say("RCPT TO:<a@good.test>", 250)
    client.say("EHLO again.test", 250)
    client.say("DATA", 503)
    expect_equal(client.mail("to@good.test", body=HELLO, ehlo=False)[0], 250, "mail after all that")
    expect_equal([m.recipients for m in peer.wait(1)], [["to@good.test"]], "recipients at the peer")


def test_dismisses_those_who_talk_and_send_nothing(flow):
    peer, daemon = serve(flow, listener="max_idle_commands = 5")
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    for _ in range(5):
        client.say("NOOP", 250)
    expect_equal(client.say("NOOP")[0], 421, "reply to the sixth NOOP")
    expect(client.ended(), "421 did not close")
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    for line in ("XYZZY", "VRFY a", "DATA", "RSET"):
        client.say(line)
    expect_equal(client.mail("to@good.test", body=HELLO, ehlo=False)[0], 250, "mail within the limit")
    for _ in range(5):
        client.say("NOOP", 250)
    expect_equal(client.say("RSET")[0], 421, "reply to the sixth after mail")
    still_serves(peer, daemon)


def test_refuses_long_command_lines_and_goes_on(flow):
    peer, daemon = serve(flow)
    client = daemon.connect()
    client.say("NOOP " + "x" * 400, 250)
    client.say("NOOP " + "x" * 20000, 500)
    client.send("RCPT TO:<" + "a" * (8 << 20) + "@good.test>\r\n")
    expect_equal(client.reply()[0], 500, "reply to a line of 8 MiB")
    expect(daemon.resident_bytes() < 150 << 20, f"{daemon.resident_bytes() >> 20} MiB are resident")
    expect_equal(client.mail("to@good.test", body=HELLO)[0], 250, "mail after long lines")
    peer.wait(1)


def test_refuses_controls_and_bare_line_ends_in_commands(flow):
    peer, daemon = serve(flow)
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    for data in (b"NOOP \0\r\n", b"NOOP \xe4\xf6\r\n", b"NOOP\n", b"NO\rOP\r\n", b"\0\r\n",
                 b"MAIL FROM:<a\0@b.test>\r\n", b"MAIL FROM:<a\xff@b.test>\r\n", b"MAIL FROM:<\xc3\xa4@b.test>\r\n"):
        client.send(data)
        code, text = client.reply()
        expect(500 <= code < 560, f"{data!r} was answered {code} {text}")
    expect_equal(client.mail("to@good.test", body=HELLO, ehlo=False)[0], 250, "mail after controls")
    peer.wait(1)


def test_takes_valid_addresses_and_refuses_others(flow):
    peer, daemon = serve(flow)
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    good = ["a@good.test", "a.b+c@good.test", '"quoted local"@good.test', "A@GOOD.test", "x" * 64 + "@good.test"]
    client.say("MAIL FROM:<from@sender.test>", 250)
    for address in good:
        client.say(f"RCPT TO:<{address}>", 250)
    client.say("rcpt to:<@route.test:routed@good.test>", 250)
    for address in ("nobody", "a@", "@good.test", "a b@good.test", "a@b@good.test", "a@-bad.test", "a@x..test",
                    "x" * 300 + "@good.test", "a@" + "b." * 200 + "test"):
        code, text = client.say(f"RCPT TO:<{address}>")
        expect(code in (501, 550, 553), f"{address!r} was answered {code} {text}")
    client.say("DATA", 354)
    client.send(HELLO)
    client.say(".", 250)
    wait_until(lambda: sum(len(m.recipients) for m in peer.mails) == 6, "six recipients")
    got = {r for m in peer.mails for r in m.recipients}
    expect("routed@good.test" in got, f"the source route is still there: {got}")
    expect(all(r.partition("@")[2].lower() == "good.test" or '"' in r for r in got), f"changed: {got}")


def test_carries_international_addresses_only_with_smtputf8(flow):
    peer, daemon = serve(flow)
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    client.say("MAIL FROM:<from@sender.test>", 250)
    expect(client.say("RCPT TO:<ö@good.test>")[0] >= 500, "taken without SMTPUTF8")
    client.say("RSET", 250)
    client.say("MAIL FROM:<from@sender.test> SMTPUTF8", 250)
    client.say("RCPT TO:<ö@good.test>", 250)
    client.say("DATA", 354)
    client.send(HELLO)
    client.say(".", 250)
    expect_equal(peer.wait(1)[0].recipients, ["ö@good.test"], "recipient at the peer")
    expect("SMTPUTF8" in peer.said("MAIL")[0][1], "SMTPUTF8 was not passed on")


def test_takes_the_null_sender(flow):
    peer, daemon = serve(flow)
    daemon.connect().mail("to@good.test", sender="", body=HELLO)
    expect_equal(peer.wait(1)[0].sender, "", "sender at the peer")


def test_writes_a_received_field(flow):
    peer, daemon = serve(flow)
    text = daemon.connect().mail("to@good.test", body=HELLO)[1]
    received = peer.wait(1)[0].parse()["Received"]
    match = re.fullmatch(r"from client\.test \(\[127\.0\.0\.1\]\)\s+by flow\.test\s+with ESMTP\s+id (\w+);\s+(.*)",
                         " ".join(received.split()))
    expect(match, f"Received: {received!r}")
    expect(match[1] in text, f"id {match[1]} is not in the reply {text!r}")
    expect_equal(daemon.wait_lines("R", 1)[0][1], match[1], "id in the log")
    seconds = abs(email.utils.parsedate_to_datetime(match[2]).timestamp() - time.time())
    expect(seconds < 300, f"the date is {seconds} s off")
    client = daemon.connect()
    client.say("HELO old.test", 250)
    client.mail("to@good.test", body=HELLO, ehlo=False)
    expect(" with SMTP " in " ".join(peer.wait(2)[1].parse()["Received"].split()), "HELO gives ESMTP")


# ---- sizes ----


def test_refuses_messages_that_are_too_large(flow):
    peer, daemon = serve(flow, listener='max_message_size = "4K"')
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    client.say("MAIL FROM:<from@sender.test> SIZE=4097", 552)
    head = "Subject: exact\r\n\r\n"
    exact = head + ("y" * 62 + "\r\n") * 64
    exact = exact[:4094] + "\r\n" if exact[4093] != "\r" else exact[:4093] + "y\r\n"
    expect_equal(len(exact), 4096, "size of the test's own message")
    for body, wanted in ((exact, 250), ("x\r\n" + exact, 552), ("z" * 70 + "\r\n", 250), (exact * 100, 552)):
        code, text = client.mail("to@good.test", body=body, ehlo=False)
        expect_equal(code, wanted, f"reply to {len(body)} bytes ({text})")
    expect_equal(len(peer.wait(2)), 2, "messages at the peer")
    expect(peer.mails[0].data.endswith(exact.encode()) or peer.mails[1].data.endswith(exact.encode()), "changed")
    expect_equal(len(daemon.wait_lines("J", 3, "rejectlog")), 3, "lines in the reject log")


def test_refuses_lines_that_are_too_long(flow):
    peer, daemon = serve(flow, listener='max_line_length = "1000"')
    client = daemon.connect()
    for length, wanted in ((998, 250), (999, 500), (100000, 500)):
        code, text = client.mail("to@good.test", body="Subject: x\r\n\r\n" + "l" * length + "\r\n")
        expect_equal(code, wanted, f"reply to a line of {length} bytes ({text})")
    still_serves(peer, daemon, client)


def test_refuses_more_recipients_than_allowed_and_takes_the_others(flow):
    peer, daemon = serve(flow, listener="max_recipients_per_message = 3")
    client = daemon.connect()
    envelope(client, "r0@good.test")
    client.say("RCPT TO:<r1@good.test>", 250)
    client.say("RCPT TO:<r2@good.test>", 250)
    client.say("RCPT TO:<r3@good.test>", 452)
    client.say("DATA", 354)
    client.send(HELLO)
    client.say(".", 250)
    expect_equal(sorted(peer.wait(1)[0].recipients), ["r0@good.test", "r1@good.test", "r2@good.test"], "recipients")


def test_delivers_to_a_thousand_recipients_once_each(flow):
    peer, daemon = serve(flow)
    wanted = [f"r{i}@d{i % 3}.test" for i in range(999)]
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    client.send("MAIL FROM:<from@sender.test>\r\n" + "".join(f"RCPT TO:<{r}>\r\n" for r in [*wanted, wanted[0]])
                + "DATA\r\n")
    codes = [client.reply()[0] for _ in range(1002)]
    expect_equal(set(codes[:-1]) | {codes[-1]}, {250, 354}, "codes")
    client.send(HELLO)
    client.say(".", 250)
    wait_until(lambda: sum(len(m.recipients) for m in peer.mails) >= 999, "all recipients")
    expect_equal(sorted(r for m in peer.mails for r in m.recipients), sorted(wanted), "recipients")
    daemon.wait_lines("D", 999)


# ---- data ----


def test_keeps_dots_and_eight_bits_as_they_are(flow):
    peer, daemon = serve(flow)
    body = "Subject: dots\r\n\r\n" + "\r\n".join([".", "..", ". ", "..x", "ä.", "x.", "", ".", "\xff"]) + "\r\n"
    raw = body.encode("latin-1")
    stuffed = raw.replace(b"\r\n.", b"\r\n..")
    client = daemon.connect()
    expect_equal(client.mail("to@good.test", body=stuffed)[0], 250, "reply")
    mail = peer.wait(1)[0]
    expect(mail.data.endswith(raw), f"arrived as {mail.data!r}")
    expect("BODY=8BITMIME" in peer.said("MAIL")[0][1], "8BITMIME was not announced")


def test_carries_a_large_message(flow):
    """30 MiB, from the client's socket and again from the spool."""
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text='spool { segment_size = "64M" }\nsuspend_delivery = true')
    body = "Subject: large\r\n\r\n" + ("0123456789" * 7 + "\r\n") * (30 << 20 >> 6)
    body = body[:30 << 20] + "\r\n"
    client = daemon.connect()
    for _ in range(2):
        expect_equal(client.mail("to@large.test", body=body)[0], 250, "reply")
    daemon.terminate()
    daemon.start()
    wait_until(lambda: daemon.queued() == 2, "both after a restart")
    daemon.console("resume", "domain", "large.test")
    for mail in peer.wait(2):
        expect(mail.data.endswith(body.encode()), f"changed: {len(mail.data)} bytes")


def test_refuses_nul_in_data(flow):
    peer, daemon = serve(flow)
    client = daemon.connect()
    expect_equal(client.mail("to@good.test", body=b"Subject: x\r\n\r\nnu\0l\r\n")[0], 550, "reply")
    still_serves(peer, daemon, client)
    expect_equal(len(peer.mails), 1, "messages at the peer")


def test_takes_an_empty_message(flow):
    peer, daemon = serve(flow)
    expect_equal(daemon.connect().mail("to@good.test", body="")[0], 250, "reply")
    expect(b"Received:" in peer.wait(1)[0].data, "no trace header")


SMUGGLING = [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\n.\r", b"\r.\n", b"\r\n\0.\r\n"]
SECOND = b"MAIL FROM:<evil@sender.test>\r\nRCPT TO:<victim@good.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nno\r\n"


def smuggle(client, sequence):
    client.say("MAIL FROM:<from@sender.test>", 250)
    client.say("RCPT TO:<to@good.test>", 250)
    client.say("DATA", 354)
    client.send(b"Subject: carrier\r\n\r\nfirst" + sequence + SECOND + b".\r\n")
    return client.reply()


def test_refuses_smuggled_messages(flow):
    peer, daemon = serve(flow)
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    for sequence in SMUGGLING:
        code, text = smuggle(client, sequence)
        expect_equal(code, 550, f"reply to {sequence!r} ({text})")
        client.say("NOOP", 250)
    still_serves(peer, daemon, client)
    expect_equal([m.recipients for m in peer.mails], [["next@good.test"]], "recipients at the peer")


def test_makes_one_harmless_message_of_smuggled_ones_if_told_to(flow):
    peer, daemon = serve(flow, listener='bare_lf = "accept_as_data"')
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    sequences = [s for s in SMUGGLING if b"\0" not in s]
    for sequence in sequences:
        code, text = smuggle(client, sequence)
        expect_equal(code, 250, f"reply to {sequence!r} ({text})")
        client.say("NOOP", 250)
    mails = peer.wait(len(sequences))
    still_serves(peer, daemon, client)
    expect_equal(len(peer.mails), len(sequences) + 1, "messages at the peer")
    for mail in mails:
        expect_equal(mail.recipients, ["to@good.test"], "recipients")
        expect(b"victim" in mail.data and b"smuggled" in mail.data, f"cut: {mail.data!r}")
        bare = re.search(rb"[^\r]\n|\r[^\n]", mail.data)
        expect(not bare, f"a bare CR or LF went out: {mail.data!r}")


def test_refuses_bare_line_ends_or_converts_them(flow):
    peer, daemon = serve(flow, listener='peer "127.0.0.2/32" { bare_lf = "accept_as_data" }')
    for data in (b"one\ntwo\r\n", b"one\rtwo\r\n", b"one\r\r\ntwo\r\n"):
        body = b"Subject: x\r\n\r\n" + data
        expect_equal(daemon.connect().mail("to@good.test", body=body)[0], 550, f"reply to {data!r}")
        expect_equal(daemon.connect(source="127.0.0.2").mail("to@good.test", body=body)[0], 250,
                     f"reply to {data!r} where it is accepted")
    bodies = sorted(m.body for m in peer.wait(3))
    expect_equal(bodies, sorted([b"one\r\ntwo\r\n", b"one\r\ntwo\r\n", b"one\r\n\r\ntwo\r\n"]), "bodies")


def test_refuses_mail_loops(flow):
    peer, daemon = serve(flow)
    trace = "Received: from a.test by b.test; Mon, 1 Jan 2024 00:00:00 +0000\r\n"
    expect_equal(daemon.connect().mail("to@good.test", body=trace * 90 + HELLO)[0], 250, "reply to 90 hops")
    expect_equal(daemon.connect().mail("to@good.test", body=trace * 101 + HELLO)[0], 554, "reply to 101 hops")
    peer.wait(1)


# ---- pipelining ----


def test_refuses_input_behind_data(flow):
    peer, daemon = serve(flow)
    client = daemon.connect()
    envelope(client)
    client.send("DATA\r\n" + HELLO + ".\r\n")
    expect_equal(client.reply()[0], 503, "reply to DATA with more behind it")
    expect(client.ended(), "the connection stays open")
    still_serves(peer, daemon)


def test_refuses_input_before_the_banner(flow):
    peer, daemon = serve(flow)
    daemon.freeze()
    client = daemon.connect(greet=False)
    client.send("EHLO client.test\r\n")
    daemon.thaw()
    expect_equal(client.reply()[0], 554, "reply to an early talker")
    expect(client.ended(), "the connection stays open")
    still_serves(peer, daemon)


test_refuses_input_before_the_banner.backends = BACKENDS


def pieces(data, rng):
    """The data cut at random places, often next to a line end."""
    cuts = {rng.randrange(1, len(data)) for _ in range(rng.randrange(1, 12))}
    cuts |= {m.start() + rng.randrange(0, 4) for m in re.finditer(rb"\r\n", data) if rng.random() < 0.2}
    edges = [0, *sorted(c for c in cuts if 0 < c < len(data)), len(data)]
    return [data[a:b] for a, b in zip(edges, edges[1:])]


def test_reads_pipelined_messages_split_anywhere(flow):
    peer, daemon = serve(flow, schedulers=2)
    wanted = []
    for seed in range(25):
        rng = random.Random(seed)
        client = daemon.connect()
        client.say("EHLO client.test", 250)
        data = b""
        for n in range(4):
            lines = [rng.choice([b"", b".", b"..", b"text", b".text", b"x" * 300]) for _ in range(rng.randrange(6))]
            name = f"m{seed}-{n}".encode()
            body = b"\r\n".join([b"Subject: " + name, b"", name, *lines, b""])
            wanted.append(body)
            group = data + b"MAIL FROM:<from@sender.test>\r\nRCPT TO:<to@good.test>\r\nDATA\r\n"
            for piece in pieces(group, rng):
                client.send(piece)
            codes = [client.reply()[0] for _ in range(4 if data else 3)]
            expect_equal(codes[-3:], [250, 250, 354], f"replies, seed {seed}")
            data = body.replace(b"\r\n.", b"\r\n..") + b".\r\n"
        for piece in pieces(data + b"QUIT\r\n", rng):
            client.send(piece)
        expect_equal([client.reply()[0], client.reply()[0]], [250, 221], f"last replies, seed {seed}")
        client.close()
    got = sorted(b"Subject:" + m.data.partition(b"Subject:")[2] for m in peer.wait(100))
    expect_equal(got, sorted(wanted), "messages")
    daemon.wait_for_clients()
    daemon.wait_for_rest()


test_reads_pipelined_messages_split_anywhere.backends = BACKENDS
test_reads_pipelined_messages_split_anywhere.short = True


# ---- who may send where ----


def test_relays_only_for_whom_and_where_it_may(flow):
    peer, daemon = serve(flow, listener='''relay_hosts = ( "192.0.2.0/24" "127.0.0.3/32" )
        relay_domains = ( "ours.test" ".below.test" )
        peer "127.0.0.4/30" { relay_domains = ( "*" ) }''')
    stranger = daemon.connect()
    stranger.say("EHLO client.test", 250)
    stranger.say("MAIL FROM:<from@sender.test>", 250)
    for domain, code in (("ours.test", 250), ("OURS.test", 250), ("a.below.test", 250), ("below.test", 550),
                         ("other.test", 550), ("sub.ours.test", 550), ("notours.test", 550)):
        expect_equal(stranger.say(f"RCPT TO:<to@{domain}>")[0], code, f"reply for {domain}")
    stranger.say("RCPT TO:<postmaster>", 250)
    stranger.say("RSET", 250)
    stranger.say("MAIL FROM:<from@sender.test>", 250)
    stranger.say("RCPT TO:<to@other.test>", 550)
    stranger.say("DATA", 554)
    for source in ("127.0.0.3", "127.0.0.5"):
        expect_equal(daemon.connect(source=source).mail("to@other.test", body=HELLO)[0], 250, f"reply to {source}")
    peer.wait(2)
    wait_until(lambda: any("Relaying denied" in r[-1] for r in daemon.lines("J", "rejectlog")), "a line of refusal")


test_relays_only_for_whom_and_where_it_may.short = True


def test_gives_each_peer_its_own_options(flow):
    _, daemon = serve(flow, listener='''max_message_size = "1M"
        peer "127.0.0.0/8" { max_message_size = "2M" }
        peer "127.0.0.2/31" { max_message_size = "3M" hostname = "second.test" }''')
    for source, size, name in (("127.0.0.1", 2 << 20, "flow.test"), ("127.0.0.2", 3 << 20, "second.test")):
        text = daemon.connect(source=source).say("EHLO client.test", 250)[1]
        expect(f"SIZE {size}" in text, f"{source} was told {text!r}")
        expect(text.startswith(name), f"{source} was told {text!r}")


def test_limits_connections(flow):
    for option, sources in (("max_connections_per_peer = 2", ["127.0.0.1"] * 2),
                            ("listener_sessions = 3", ["127.0.0.1", "127.0.0.2", "127.0.0.3"]),
                            ("service_sessions = 3", ["127.0.0.1", "127.0.0.2", "127.0.0.3"])):
        peer = Peer(flow)
        daemon = Daemon(flow, sink_port=peer.port, listener=option, name=option.split()[0])
        daemon.wait_for_clients()
        clients = [daemon.connect(source=s) for s in sources]
        for _ in range(5):
            late = daemon.connect(greet=False, source=sources[0])
            expect_equal(late.reply()[0], 421, f"greeting of one too many, {option}")
            expect(late.ended(), f"one too many stays open, {option}")
        if "per_peer" in option:
            daemon.connect(source="127.0.0.9").say("QUIT", 221)
        clients.pop().close()
        wait_until(lambda: daemon.connect(greet=False, source=sources[0]).reply()[0] == 220, "room for one more")
        for client in clients:
            client.say("NOOP", 250)


def test_ends_a_connection_after_so_many_messages(flow):
    peer, daemon = serve(flow, listener="max_receptions_per_connection = 2")
    client = daemon.connect()
    for _ in range(2):
        expect_equal(client.mail("to@good.test", body=HELLO)[0], 250, "reply")
    client.say("EHLO client.test", 250)
    expect_equal(client.say("MAIL FROM:<from@sender.test>")[0], 421, "reply to a third")
    expect(client.ended(), "the connection stays open")
    still_serves(peer, daemon)


# ---- clients that are slow, silent, or gone ----


def test_dismisses_silent_clients(flow):
    peer, daemon = serve(flow, listener='idle_time = "2s"')
    began = time.monotonic()
    silent, in_data = daemon.connect(), daemon.connect()
    envelope(in_data)
    in_data.say("DATA", 354)
    in_data.send("Subject: never ends\r\n")
    for client in (silent, in_data):
        expect_equal(client.reply()[0], 421, "what a silent client hears")
        expect(client.ended(), "it stays connected")
    # By default they would be borne with for minutes.
    expect(1.9 <= time.monotonic() - began < 60, f"after {time.monotonic() - began:.1f} s")
    still_serves(peer, daemon)


test_dismisses_silent_clients.backends = BACKENDS
test_dismisses_silent_clients.short = True


def test_dismisses_those_who_send_a_byte_now_and_then(flow):
    """Never silent for long, but never done: the session is limited too."""
    peer, daemon = serve(flow, listener='idle_time = "1500ms" session_timeout = "2s"')
    began = time.monotonic()
    client = daemon.connect()
    client.socket.settimeout(0.3)
    line = b""
    while not line and time.monotonic() - began < PATIENCE:
        client.send("N")
        try:
            line = client.socket.recv(200)
        except TimeoutError:
            pass
    expect(line.startswith(b"421"), f"heard {line!r}")
    seconds = time.monotonic() - began
    # Its clock is that of its last look, some ms ago.
    expect(1.9 <= seconds < PATIENCE, f"after {seconds:.3f} s")
    still_serves(peer, daemon)


def test_does_not_wait_for_those_who_never_read(flow):
    peer, daemon = serve(flow, listener='idle_time = "2s" max_idle_commands = 1000000', schedulers=1)
    deaf = daemon.connect()
    deaf.socket.settimeout(1)
    sent = 0
    try:
        while sent < 256 << 20:
            sent += deaf.socket.send(b"HELP\r\n" * 10000)
    except OSError:
        pass
    expect(sent < 256 << 20, "everything was read, though no reply was taken")
    expect(daemon.resident_bytes() < 150 << 20, f"{daemon.resident_bytes() >> 20} MiB are resident")
    still_serves(peer, daemon)


test_does_not_wait_for_those_who_never_read.backends = BACKENDS


STAGES = ["", "EHLO client.test\r\n", "MAIL FROM:<from@sender.test>\r\n", "RCPT TO:<to@good.test>\r\n", "DATA\r\n",
          "Subject: x\r\n\r\nhalf a li", "ne\r\n.\r"]


def leave_at(daemon, stage, abrupt):
    """Plays the first `stage` steps of a transaction and goes away, before its last byte at the latest."""
    client = daemon.connect(greet=stage > 0)
    for step in STAGES[1:stage]:
        client.send(step)
        if step.endswith("\r\n"):
            client.reply()
    client.reset() if abrupt else client.close()


def test_survives_clients_that_leave_at_any_stage(flow):
    peer, daemon = serve(flow)
    for abrupt in (False, True):
        for stage in range(len(STAGES) + 1):
            for _ in range(5):
                leave_at(daemon, stage, abrupt)
    daemon.wait_for_clients()
    accepted = daemon.console("summary")["received_messages"]
    expect(accepted == 0, f"{accepted} messages accepted that nobody finished")
    still_serves(peer, daemon)
    memory = daemon.console("memory")
    expect_equal(memory["receiving_bytes"], 0, "bytes still under reception")
    expect_equal(memory["resident_body_bytes"], 0, "bytes of bodies still in memory")


test_survives_clients_that_leave_at_any_stage.backends = BACKENDS
test_survives_clients_that_leave_at_any_stage.short = True


def test_keeps_what_was_complete_when_the_client_left(flow):
    """The final dot came, then the client went without its reply: accepted once or not at all."""
    peer, daemon = serve(flow)
    for i in range(20):
        client = daemon.connect()
        envelope(client)
        client.say("DATA", 354)
        client.send(HELLO + ".\r\n")
        client.reset() if i % 2 else client.close()
    daemon.wait_for_clients()
    daemon.wait_for_rest()
    # Those after a FIN must be; one that is still being written down has no session any more.
    peer.wait(10)
    still_serves(peer, daemon)
    wait_until(lambda: daemon.console("summary")["received_messages"] == len(peer.mails), "all accepted at the peer")
    expect(11 <= len(peer.mails) <= 21, f"{len(peer.mails)} messages at the peer")


def test_serves_many_at_once(flow):
    peer, daemon = serve(flow, schedulers=2)
    clients = [Client(daemon.port, greet=False) for _ in range(300)]
    for client in clients:
        expect_equal(client.reply()[0], 220, "banner")
    for client in clients:
        client.send("EHLO c.test\r\n")
    for client in clients:
        expect_equal(client.reply()[0], 250, "EHLO")
        client.close()
    still_serves(peer, daemon)
