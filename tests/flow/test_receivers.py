"""Mail arrives as it was at receivers that others wrote, with each extension that they offer: with and without
TLS, by DATA and by BDAT, with DSN and SMTPUTF8."""

import re

from certificates import Certificates
from flow import Daemon, expect, expect_equal, wait_until
from receivers import Aiosmtpd, Exim
from test_real_peers import UNUSUAL

CRLF = b"\r\n"
SIZES = (0, 1, 997, 4095, 4096, 4097, 70000, 1000000)


def messages():
    """Sender, recipient, words of MAIL and RCPT, and bytes of each message."""
    for number, size in enumerate(SIZES):
        lines = size // 64
        body = (b"." + b"x" * 61 + CRLF) * lines + b"y" * (size - 64 * lines) + (CRLF if size % 64 else b"")
        yield f"s{number}@sender.test", "to@box.test", "", "", b"Subject: size\r\nX-Mine: %d\r\n\r\n" % size + body
    unusual = b"Subject: unusual\r\nX-Folded: a\r\n\tb\r\n\r\n" + UNUSUAL
    yield "eight@sender.test", "to@box.test", " BODY=8BITMIME", "", unusual
    yield "", "to@box.test", "", "", b"Subject: null\r\n\r\n.\r\n..\r\n...\r\nend\r\n"
    yield ("jürgen@grüße.test", "jürgen@bücher.test", " SMTPUTF8 BODY=8BITMIME", "",
           "Subject: Grüße\r\nX-Ü: ü\r\n\r\nGrüße\r\n".encode())
    yield "dsn@sender.test", "dsn@box.test", " RET=HDRS ENVID=QQ314159", " NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;old@box.test", \
        b"Subject: told\r\n\r\nhello\r\n"


def stuffed(data):
    return re.sub(rb"(?m)^\.", b"..", data)


def send(daemon):
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    sent = []
    for sender, recipient, mail, rcpt, data in messages():
        client.say(f"MAIL FROM:<{sender}>{mail}", 250)
        client.say(f"RCPT TO:<{recipient}>{rcpt}", 250)
        client.say("DATA", 354)
        client.send(stuffed(data))
        client.say(".", 250)
        sent.append(data)
    return sent


def pieces(mail):
    """The message from the first field that its sender wrote on."""
    return mail[re.search(rb"(?m)^Subject: ", mail).start():]


def check_receiver(flow, kind, certificates, chunking):
    tls = certificates is not None
    receiver = kind(flow, certificates)
    name = f"{kind.__name__}-{tls}-{chunking}"
    daemon = Daemon(flow, name=name, sink_port=receiver.port,
                    text=f'use_chunking = {str(chunking).lower()} tls = {"required" if tls else "no"}')
    sent = send(daemon)
    # With DSN the receiver itself tells the sender that it delivered; without it, we do that it was relayed.
    mails = receiver.take(len(sent) + 1)
    daemon.wait_for_rest()
    own = [m for m in mails if not re.search(rb"(?m)^Content-Type: multipart/report", m)]
    expect_equal(sorted(map(pieces, own)), sorted(sent), f"messages, {name}")
    [report] = [m for m in mails if m not in own]
    expect(b"QQ314159" in report and (b"Action: delivered" if "DSN" in kind.EXTENSIONS else b"Action: relayed") in report,
           f"{name}: {report!r}")
    wait_until(lambda: daemon.count("D") >= len(sent), "D lines")
    expect_equal((daemon.count("T"), daemon.count("P")), (0, 0), f"T and P lines, {name}")
    handshakes = daemon.counter("scheduler.outbound.tls13") + daemon.counter("scheduler.outbound.tls12")
    expect_equal(handshakes > 0, tls, f"TLS, {name}")
    return receiver


def check_exim(flow, certificates, chunking):
    receiver = check_receiver(flow, Exim, certificates, chunking)
    arrivals = [line for line in receiver.said().splitlines() if " <= " in line and "127.0.0.1" in line]
    expect(len(arrivals) >= len(SIZES), f"arrivals: {arrivals}")
    expect_equal({" K " in line for line in arrivals}, {chunking}, "BDAT in Exim's log")
    expect_equal({"X=TLS" in line for line in arrivals}, {certificates is not None}, "TLS in Exim's log")


def test_exim_takes_mail_in_every_way(flow):
    for certificates in (None, Certificates(flow)):
        for chunking in (False, True):
            check_exim(flow, certificates, chunking)


def test_aiosmtpd_takes_mail_in_every_way(flow):
    for certificates in (None, Certificates(flow)):
        check_receiver(flow, Aiosmtpd, certificates, True)
