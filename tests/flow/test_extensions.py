"""SMTP extensions as clients of flywheel use them: chunks."""

import random
import re

from flow import Daemon, expect, expect_equal
from peer import Peer
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
