"""TLS in and out: what is offered, agreed on, refused, verified, and what follows when it fails."""

import json
import re
import shutil
import ssl
import subprocess
import time
import xml.etree.ElementTree

from certificates import Certificates
from flow import PATIENCE, Client, Daemon, Sink, Skip, expect, expect_equal, wait_until
from peer import Peer
from test_real_peers import Postfix, swaks

HELLO = "Subject: hello\r\n\r\nhello\r\n"
LARGE = "Subject: large\r\n\r\n" + "".join(f"{i:08d} {'x' * 60}\r\n" for i in range(20000))


def tls_options(certificates, name="mx.test"):
    return f'tls_certificate = "{certificates.make(name)}" tls_key = "{certificates.key}"'


def start_tls(client, context, name="mx.test", ehlo=True):
    """What EHLO says afterwards."""
    client.say("STARTTLS", 220)
    wrap(client, context, name)
    return client.say("EHLO client.test", 250)[1].split("\n") if ehlo else None


def wrap(client, context, name="mx.test"):
    client.file.close()
    client.socket = context.wrap_socket(client.socket, server_hostname=name)
    client.file = client.socket.makefile("rb")


# ---- in ----


def test_offers_starttls_where_it_has_a_certificate(flow):
    c = Certificates(flow)
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text="tls = no",
                    listener=f'peer "127.0.0.2/32" {{ {tls_options(c)} }}')
    plain = daemon.connect()
    expect("STARTTLS" not in plain.say("EHLO client.test", 250)[1].split("\n"), "offered without a certificate")
    plain.say("STARTTLS", 502)
    client = Client(daemon.port, source="127.0.0.2")
    expect("STARTTLS" in client.say("EHLO client.test", 250)[1].split("\n"), "not offered")
    client.say("MAIL FROM:<plain@sender.test>", 250)
    client.say("STARTTLS", 220)
    wrap(client, c.client())
    # All that was said before is forgotten (RFC 3207 section 4.2).
    client.say("RCPT TO:<to@a.test>", 503)
    client.say("MAIL FROM:<from@sender.test>", 503)
    words = client.say("EHLO client.test", 250)[1].split("\n")
    expect("STARTTLS" not in words, "offered twice")
    client.say("STARTTLS", 503)
    expect_equal(client.mail("to@a.test", body=LARGE, ehlo=False)[0], 250, "reply")
    client.say("QUIT", 221)
    expect(client.ended(), "the connection stays")
    mail = peer.wait(1)[0]
    expect_equal(mail.data.partition(b"Subject")[2].decode(), LARGE.partition("Subject")[2], "body")
    version, cipher = client.socket.version(), "TLS_AES_256_GCM_SHA384"
    received = " ".join(mail.parse()["Received"].split())
    expect(f"with ESMTPS ({version} {cipher}) id" in received, received)
    expect_equal(daemon.wait_lines("R", 1)[0][11], "esmtps", "protocol in the log")
    expect_equal(daemon.counter("scheduler.smtp_tls13"), 1, "handshakes")


test_offers_starttls_where_it_has_a_certificate.backends = ["uring", "epoll", "poll"]
test_offers_starttls_where_it_has_a_certificate.short = True


def test_speaks_tls_from_the_first_byte_where_told(flow):
    c = Certificates(flow)
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, listener=f'use_ssl = true {tls_options(c)}')
    client = Client(daemon.port, greet=False)
    wrap(client, c.client())
    expect_equal(client.reply()[0], 220, "banner")
    words = client.say("EHLO client.test", 250)[1].split("\n")
    expect("STARTTLS" not in words, "offered on top")
    client.say("STARTTLS", 502)
    for _ in range(3):
        expect_equal(client.mail("to@a.test", body=LARGE, ehlo=False)[0], 250, "reply")
    # It ends without a word: what was accepted stays.
    client.reset()
    expect_equal(len({m.data for m in peer.wait(3)}), 3, "messages")
    for mail in peer.mails:
        expect(mail.data.endswith(LARGE.encode()), "body")
    daemon.wait_for_clients()


test_speaks_tls_from_the_first_byte_where_told.short = True


def s_client(port, *options, wanted=0, name="mx.test"):
    done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", name, "-starttls",
                           "smtp", *map(str, options)], input=b"QUIT\r\n", capture_output=True, timeout=PATIENCE)
    text = (done.stdout + done.stderr).decode(errors="replace")
    expect((done.returncode == 0) == (wanted == 0), f"s_client {options}: {done.returncode}\n{text}")
    return text


def test_refuses_old_tls_and_logs_why(flow):
    c = Certificates(flow)
    daemon = Daemon(flow, listener=tls_options(c))
    for version in ("-tls1_2", "-tls1_3"):
        s_client(daemon.port, version)
    weak = ("-cipher", "ALL:@SECLEVEL=0")
    for version in ("-tls1", "-tls1_1"):
        text = s_client(daemon.port, version, *weak, wanted=1)
        expect("alert protocol version" in text, text)
    s_client(daemon.port, "-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0", wanted=1)
    rows = daemon.wait_lines("J", 3, "rejectlog")
    expect_equal({(row[6], row[7]) for row in rows}, {("17", "454")}, "stage and code")
    expect_equal(sorted(row[12].removeprefix("4.7.0 TLS handshake failed: ") for row in rows),
                 ["no shared cipher", "unsupported protocol", "unsupported protocol"], "reasons")
    expect_equal(daemon.counter("scheduler.smtp_tls_failed"), 3, "failures counted")
    expect_equal((daemon.counter("scheduler.smtp_tls12"), daemon.counter("scheduler.smtp_tls13")), (1, 1), "versions")


def test_shows_the_certificate_that_is_asked_for(flow):
    c = Certificates(flow)
    other = c.make("other.test")
    wild = c.make("*.wild.test")
    daemon = Daemon(flow, listener=tls_options(c), text=f"""
tls_certificate "other.test" {{ certificate = "{other}" key = "{c.key}" }}
tls_certificate "*.wild.test" {{ certificate = "{wild}" key = "{c.key}" }}""")
    for name, shown in (("mx.test", "mx.test"), ("other.test", "other.test"), ("a.wild.test", "*.wild.test"),
                        ("nobody.test", "mx.test")):
        text = s_client(daemon.port, name=name)
        expect(f"subject=CN = {shown}\n" in text, f"{name}: {text}")
    # Python verifies the name.
    for name in ("other.test", "a.wild.test"):
        client = daemon.connect()
        client.say("EHLO client.test", 250)
        start_tls(client, c.client(), name)


def test_agrees_on_what_it_was_told(flow):
    c = Certificates(flow)
    cases = {
        "127.0.0.2": ('tls_protocols = "TLSv1.2"', ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384")),
        "127.0.0.3": ('tls_protocols = "TLSv1.3"', ("TLSv1.3", "TLS_AES_256_GCM_SHA384")),
        "127.0.0.4": ('tls_ciphers = "TLS_CHACHA20_POLY1305_SHA256:ECDHE-ECDSA-AES128-GCM-SHA256"',
                      ("TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256")),
        "127.0.0.5": ('tls_ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256" tls_protocols = "TLSv1.2"',
                      ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256")),
    }
    both = c.folder / "both.pem"
    both.write_bytes(c.make("mx.test").read_bytes() + c.key.read_bytes())
    peers = "".join(f'peer "{a}/32" {{ {o} }}\n' for a, (o, _) in cases.items())
    daemon = Daemon(flow, listener=f'tls_certificate = "{both}"\n{peers}')
    for address, (_, agreed) in cases.items():
        client = Client(daemon.port, source=address)
        client.say("EHLO client.test", 250)
        start_tls(client, c.client())
        expect_equal((client.socket.version(), client.socket.cipher()[0]), agreed, address)


def test_obeys_nothing_that_came_with_starttls(flow):
    c = Certificates(flow)
    daemon = Daemon(flow, listener=f"""{tls_options(c)}
peer "127.0.0.2/32" {{ starttls_injection_policy = ignore }}
peer "127.0.0.3/32" {{ starttls_injection_policy = allow }}""")
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    client.send("STARTTLS\r\nEHLO injected.test\r\nMAIL FROM:<injected@sender.test>\r\n")
    expect_equal(client.reply()[0], 554, "reply")
    expect(client.ended(), "the connection stays")
    row = daemon.wait_lines("J", 1, "rejectlog")[0]
    expect_equal((row[6], row[7], row[12]), ("15", "554", "5.5.1 Unexpected input after STARTTLS"), "stage, code, text")
    expect_equal(daemon.counter("scheduler.smtp_starttls_injection"), 1, "counted")
    for address, replies in (("127.0.0.2", [503]), ("127.0.0.3", [250, 250, 503])):
        client = Client(daemon.port, source=address)
        client.say("EHLO client.test", 250)
        client.send("STARTTLS\r\nEHLO injected.test\r\nMAIL FROM:<injected@sender.test>\r\n")
        expect_equal(client.reply()[0], 220, "reply")
        wrap(client, c.client())
        client.send("MAIL FROM:<mine@sender.test>\r\n")
        expect_equal([client.reply()[0] for _ in replies], replies, address)


def test_knows_clients_by_their_certificates(flow):
    c = Certificates(flow)
    daemon = Daemon(flow, text="suspend_delivery = true", listener=f"""{tls_options(c)}
tls_client_ca = "{c.ca}" relay_hosts = ( )
peer "127.0.0.2/32" {{ tls_verified_peer_can_relay = true }}
peer "127.0.0.3/32" {{ tls_verify_mode = require tls_verified_peer_can_relay = true }}
peer "127.0.0.4/32" {{ tls_verify_mode = none tls_verified_peer_can_relay = true }}""")
    good, bad = c.make("client.test"), c.make("client.test", signed=False)

    def relays(address, certificate):
        """250, 550, or 0 when there is no TLS."""
        client = Client(daemon.port, source=address)
        client.say("EHLO client.test", 250)
        try:
            start_tls(client, c.client(certificate))
            client.say("MAIL FROM:<from@sender.test>", 250)
            return client.say("RCPT TO:<to@a.test>")[0]
        except (OSError, ValueError):
            return 0

    for address, replies in (("127.0.0.1", (550, 550, 550)), ("127.0.0.2", (250, 550, 550)),
                             ("127.0.0.4", (550, 550, 550))):
        expect_equal(tuple(relays(address, x) for x in (good, bad, None)), replies, address)
    expect_equal(relays("127.0.0.3", good), 250, "with a certificate")
    for certificate in (bad, None):
        code = None
        try:
            code = relays("127.0.0.3", certificate)
        except Exception as error:
            expect("answered 0" in str(error), str(error))
        expect(code in (None, 0), f"{code} without a good one")


def test_dismisses_who_does_not_shake_hands(flow):
    c = Certificates(flow)
    daemon = Daemon(flow, listener=f"{tls_options(c)} idle_time = 300ms")
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    client.say("STARTTLS", 220)
    expect(client.ended(), "the connection stays")
    row = daemon.wait_lines("J", 1, "rejectlog")[0]
    expect_equal((row[6], row[12]), ("17", "4.7.0 TLS handshake failed: timed out"), "stage and reason")
    # A stop does not wait for a handshake either.
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    client.say("STARTTLS", 220)
    expect_equal(daemon.terminate()[0], 0, "status")


def test_says_what_is_wrong_with_its_certificates(flow):
    c = Certificates(flow)
    daemon = Daemon(flow, start=False, listener=f'\ntls_certificate = "{c.key}"')
    done = subprocess.run([flow.program("flywheeld"), "--config", daemon.config, "--check"], capture_output=True,
                          text=True, timeout=PATIENCE)
    expect(done.returncode == 1, "valid")
    expect(re.search(rf':\d+: option "tls_certificate": cannot be used: certificate "{c.key}": no start line',
                     done.stderr + done.stdout), done.stderr + done.stdout)


def test_swaks_sends_by_tls(flow):
    c = Certificates(flow)
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, listener=tls_options(c))
    swaks(daemon.port, "--to", "to@a.test", "--tls", "--tls-verify", "--tls-ca-path", c.ca, "--tls-sni", "mx.test",
          wanted=0)
    expect("with ESMTPS (TLSv1.3 " in " ".join(peer.wait(1)[0].parse()["Received"].split()), "no TLS")


def test_sslscan_finds_no_weakness(flow):
    if not shutil.which("sslscan"):
        raise Skip("sslscan is not installed")
    c = Certificates(flow)
    daemon = Daemon(flow, listener=tls_options(c))
    done = subprocess.run(["sslscan", "--starttls-smtp", "--xml=-", "--no-colour", f"127.0.0.1:{daemon.port}"],
                          capture_output=True, text=True, timeout=PATIENCE)
    scan = xml.etree.ElementTree.fromstring(done.stdout).find("ssltest")
    protocols = {(p.get("type"), p.get("version")) for p in scan.iter("protocol") if p.get("enabled") == "1"}
    expect_equal(protocols, {("tls", "1.2"), ("tls", "1.3")}, "protocols")
    expect_equal(scan.find("renegotiation").get("supported"), "0", "renegotiation")
    expect_equal({h.get("vulnerable") for h in scan.iter("heartbleed")}, {"0"}, "heartbleed")
    ciphers = {x.get("cipher") for x in scan.iter("cipher")}
    expect(len(ciphers) >= 4, f"ciphers: {ciphers}")
    for cipher in ciphers:
        expect(cipher.startswith(("TLS_AES", "TLS_CHACHA20", "ECDHE-")) and ("GCM" in cipher or "POLY1305" in cipher),
               f"cipher {cipher}")
    # It can no longer ask for compression, nor for a version below the best.
    expect("Compression: NONE" in s_client(daemon.port, "-tls1_2"), "compression")
    text = s_client(daemon.port, "-tls1_2", "-fallback_scsv", wanted=1)
    expect("inappropriate fallback" in text, text)


def test_takes_up_new_certificates(flow):
    """Open sessions go on; what cannot be used changes nothing."""
    c = Certificates(flow)
    current, named = c.folder / "current.pem", c.folder / "named.pem"
    current.write_bytes(c.make("old.test").read_bytes())
    named.write_bytes(c.make("named.test").read_bytes())
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, listener=f'tls_certificate = "{current}" tls_key = "{c.key}"',
                    text=f'tls_certificate "named.test" {{ certificate = "{named}" key = "{c.key}" }}')
    before = daemon.connect()
    before.say("EHLO client.test", 250)
    start_tls(before, c.client(), "old.test")
    current.write_bytes(c.make("new.test").read_bytes())
    expect("CN = old.test" in s_client(daemon.port, name="x.test"), "taken up unasked")
    expect_equal(daemon.console("tls", "reload"), {"contexts_reloaded": 1}, "answer")
    expect("CN = new.test" in s_client(daemon.port, name="x.test"), "not taken up")
    expect("CN = named.test" in s_client(daemon.port, name="named.test"), "the one by name")
    expect_equal(before.mail("to@a.test", ehlo=False)[0], 250, "the open session")
    peer.wait(1)
    named.write_text("rubbish")
    current.write_bytes(c.make("newer.test").read_bytes())
    answer = daemon.console("tls", "reload", fail=True)
    expect("nothing has changed" in answer and "named.pem" in answer, answer)
    expect("CN = new.test" in s_client(daemon.port, name="x.test"), "changed although a file is broken")
    # Again and again, while sessions begin.
    named.write_bytes(c.make("named.test").read_bytes())
    for _ in range(20):
        daemon.console("tls", "reload")
        client = daemon.connect()
        client.say("EHLO client.test", 250)
        start_tls(client, c.client(), "newer.test")
        client.say("QUIT", 221)
    before.say("NOOP", 250)


test_takes_up_new_certificates.short = True


def test_testssl_finds_no_weakness(flow):
    if not shutil.which("testssl"):
        raise Skip("testssl.sh is not installed")
    c = Certificates(flow)
    daemon = Daemon(flow, listener=tls_options(c))
    result = flow.path / "testssl.json"
    # Protocols, kinds of ciphers, forward secrecy, renegotiation, compression, RC4.
    done = subprocess.run(["testssl", "-t", "smtp", "--quiet", "--color", "0", "--warnings", "off", "--nodns", "none",
                           "--jsonfile", result, "-p", "-s", "-f", "-R", "-C", "-4", f"127.0.0.1:{daemon.port}"],
                          capture_output=True, text=True, timeout=PATIENCE * 5, stdin=subprocess.DEVNULL)
    expect(result.exists(), done.stdout + done.stderr)
    rows = {row["id"]: row for row in json.loads(result.read_text())}
    wanted = {name: "not offered" for name in (
        "SSLv2", "SSLv3", "TLS1", "TLS1_1", "cipherlist_NULL", "cipherlist_aNULL", "cipherlist_EXPORT", "cipherlist_LOW",
        "cipherlist_3DES_IDEA", "cipherlist_AVERAGE")}
    wanted |= {"TLS1_2": "offered", "TLS1_3": "offered with final", "cipherlist_STRONG": "offered", "PFS": "offered",
               "secure_renego": "supported", "secure_client_renego": "not vulnerable", "RC4": "not vulnerable"}
    for name, finding in wanted.items():
        expect_equal(rows[name]["finding"], finding, name)
    expect(rows["CRIME_TLS"]["finding"].startswith("not vulnerable"), f"compression: {rows['CRIME_TLS']}")
    # What its own openssl cannot do is no finding.
    bad = [row for row in rows.values() if row["severity"] in ("LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL")]
    expect_equal(bad, [], "weaknesses")


# ---- out ----


def send(daemon, domain="a.test", body=HELLO, sender="from@sender.test"):
    expect_equal(daemon.connect().mail(f"to@{domain}", body=body, sender=sender)[0], 250, "reply")


def by_name(peer):
    """A next hop whose name is to be verified."""
    return f'gateway = "localhost:{peer.port}"\n'


def test_sends_by_tls_where_it_is_offered(flow):
    c = Certificates(flow)
    peer = Peer(flow, tls=c.server(signed=False))
    daemon = Daemon(flow, sink_port=peer.port, text="max_outbound_connections = 1 max_deliveries_per_connection = 1",
                    schedulers=1)
    for i in range(3):
        send(daemon, body=LARGE)
        expect(peer.wait(i + 1)[i].data.endswith(LARGE.encode()), "body")
    daemon.wait_for_rest()
    # The second connection, and the third, resume the session of the one before.
    expect_equal(peer.secured, [("TLSv1.3", False), ("TLSv1.3", True), ("TLSv1.3", True)], "handshakes")
    expect_equal([line for _, line in peer.said("EHLO")], ["EHLO flow.test"] * 6, "EHLO before and after")
    counts = daemon.counters("scheduler*.outbound.tls*")
    expect_equal([counts[f"scheduler.outbound.tls{k}"] for k in ("12", "13", "_resumed", "_verified", "_failed")],
                 [0, 3, 2, 0, 0], "counters")
    expect_equal([line[12:] for line in daemon.wait_lines("D", 3)], [["TLSv1.3:TLS_AES_256_GCM_SHA384:none"]] * 3,
                 "TLS in D lines")


test_sends_by_tls_where_it_is_offered.backends = ["uring", "epoll", "poll"]
test_sends_by_tls_where_it_is_offered.short = True


def test_forgets_what_was_offered_before_tls(flow):
    c = Certificates(flow)
    peer = Peer(flow, tls=c.server(), ehlo=lambda s: "502 no" if isinstance(s.socket, ssl.SSLSocket) else True)
    daemon = Daemon(flow, sink_port=peer.port)
    send(daemon)
    peer.wait(1)
    expect_equal([line for _, line in peer.said("HELO")], ["HELO flow.test"], "HELO")
    expect_equal([line for _, line in peer.said("MAIL")], ["MAIL FROM:<from@sender.test>"], "MAIL")


def test_shows_how_it_sends(flow):
    c = Certificates(flow)
    peer = Peer(flow, tls=c.server())
    daemon = Daemon(flow, text=f'{by_name(peer)} tls = verify tls_ca = "{c.ca}" idle_timeout = 1h')
    send(daemon)
    peer.wait(1)
    expect_equal(daemon.wait_lines("D", 1)[0][12:], ["TLSv1.3:TLS_AES_256_GCM_SHA384:pkix"], "D line")
    rows = daemon.console("domain", "a.test")["connections"]
    expect_equal([r["tls"] for r in rows], ["TLSv1.3 TLS_AES_256_GCM_SHA384, pkix"], "connections")
    expect_equal(daemon.counter("scheduler.outbound.tls_verified"), 1, "verified")


def test_sends_in_plain_text_when_told(flow):
    c = Certificates(flow)
    peer = Peer(flow, tls=c.server())
    daemon = Daemon(flow, sink_port=peer.port, text='domain "plain.test" { tls = no }')
    send(daemon, "plain.test")
    peer.wait(1)
    expect_equal(peer.said("STARTTLS"), [], "STARTTLS")
    send(daemon, "other.test")
    peer.wait(2)
    expect_equal(len(peer.secured), 1, "handshakes")


class Broken:
    """Answers to STARTTLS that lead nowhere."""

    @staticmethod
    def refuses(session):
        return "454 4.7.0 not now"

    @staticmethod
    def babbles(session):
        session.socket.sendall(b"220 go\r\n")
        session.file.read(5)
        session.socket.sendall(b"this is no TLS at all\r\n" * 10)
        raise ConnectionError("enough")

    @staticmethod
    def closes(session):
        session.socket.sendall(b"220 go\r\n")
        session.file.read(5)
        raise ConnectionError("enough")

    @staticmethod
    def hangs_up(session):
        return None

    @staticmethod
    def injects(session):
        session.socket.sendall(b"220 go\r\n250 2.0.0 I am TLS, believe me\r\n")
        session.file.read(1)
        raise ConnectionError("enough")

    REASONS = {refuses: "refused: 454 4.7.0 not now", babbles: "wrong version number", closes: "closed the connection",
               hangs_up: "closed by remote host", injects: "sent on in plain text"}


def test_goes_on_in_plain_text_when_tls_fails(flow):
    for trick, reason in Broken.REASONS.items():
        trick = trick.__func__ if isinstance(trick, staticmethod) else trick
        peer = Peer(flow, offers=("PIPELINING", "STARTTLS"), starttls=trick)
        daemon = Daemon(flow, sink_port=peer.port, text="max_deliveries_per_connection = 1", name=trick.__name__)
        for i in range(2):
            send(daemon)
            peer.wait(i + 1)
        daemon.wait_for_rest()
        # Once, and on a connection of its own; then it is remembered.
        expect_equal([n for _, n, line in peer.commands if line == "STARTTLS"], [1], trick.__name__)
        expect_equal([m.connection for m in peer.mails], [2, 3], trick.__name__)
        expect_equal(len(daemon.lines("T")), 0, "deferrals")
        daemon.wait_panic("TLS with 127.0.0.1 (127.0.0.1) failed, going on in plain text")
        daemon.wait_panic(reason)
        expect_equal(daemon.counter("scheduler.outbound.tls_fallbacks"), 1, "fallbacks")
        hop = daemon.console("domain", "a.test")["next_hops"][0]
        expect(3500 < hop["plain_for_s"] <= 3600 and hop["failures"] == 0, f"next hop: {hop}")


def test_goes_on_in_plain_text_however_soon_tls_is_tried_again(flow):
    """tls_failure_retry is over before the next connection has got to STARTTLS."""
    def slow(session):
        time.sleep(0.02)
        return True

    peer = Peer(flow, offers=("STARTTLS",), starttls="454 no", ehlo=slow)
    daemon = Daemon(flow, sink_port=peer.port, text="tls_failure_retry = 1ms max_deliveries_per_connection = 1 idle_timeout = 0")
    for i in range(3):
        send(daemon)
        peer.wait(i + 1)
    expect_equal([m.connection for m in peer.mails], [2, 4, 6], "connections")


def test_tries_tls_again_after_a_while(flow):
    c = Certificates(flow)
    broken = [True]
    peer = Peer(flow, tls=c.server(), starttls=lambda s: "454 no" if broken[0] else "220 go")
    daemon = Daemon(flow, sink_port=peer.port,
                    text="tls_failure_retry = 3s max_deliveries_per_connection = 1 idle_timeout = 0")
    send(daemon)
    peer.wait(1)
    broken[0] = False

    def secured():
        send(daemon)
        return peer.secured

    wait_until(secured, "TLS")


def test_gives_a_silent_handshake_up(flow):
    def silent(session):
        session.socket.sendall(b"220 go\r\n")
        session.socket.settimeout(PATIENCE)
        while session.socket.recv(1000):
            pass
        raise ConnectionError("gone")

    peer = Peer(flow, offers=("STARTTLS",), starttls=silent)
    daemon = Daemon(flow, sink_port=peer.port, text="ehlo_timeout = 2s")
    send(daemon)
    expect_equal(peer.wait(1)[0].connection, 2, "connection")
    daemon.wait_panic("timed out: no end of the TLS handshake")


def test_never_sends_in_plain_text_when_tls_is_required(flow):
    plain = Peer(flow)
    for trick, stage, reason in ((None, "11", "does not offer STARTTLS"), (Broken.refuses, "15", "refused: 454 4.7.0"),
                                 (Broken.injects, "16", "sent on in plain text"),
                                 (Broken.babbles, "17", "wrong version number"),
                                 (Broken.hangs_up, "15", "closed by remote host")):
        peer = Peer(flow, offers=("STARTTLS",), starttls=trick) if trick else plain
        daemon = Daemon(flow, sink_port=peer.port, text='tls = required retry_interval = "1h"', name=stage + reason[:3])
        send(daemon)
        row = daemon.wait_lines("T", 1)[0]
        expect_equal(row[9], stage, f"stage, {reason}")
        expect(row[13].startswith("451 4.") and reason in row[13], row[13])
        expect_equal(peer.mails, [], "mail")
        expect_equal(peer.said("MAIL"), [], "MAIL")


def test_tries_the_next_host_when_tls_fails(flow):
    c = Certificates(flow)
    plain, good = Peer(flow), Peer(flow, tls=c.server())
    daemon = Daemon(flow, text=f"""tls = required
gateway = ( "127.0.0.1:{plain.port}?pref=10" "127.0.0.1:{good.port}?pref=20" )
""" + 'retry_interval = "10ms"')
    send(daemon)
    good.wait(1)
    expect_equal(plain.mails, [], "mail")


def test_verifies_the_next_hop(flow):
    c = Certificates(flow)
    for name, days, signed, reason in (("localhost", 30, False, "self-signed certificate"),
                                       ("localhost", -1, True, "certificate has expired"),
                                       ("other.test", 30, True, "hostname mismatch")):
        peer = Peer(flow, tls=c.server(name, days, signed))
        daemon = Daemon(flow, name=f"{name}{days}{signed}",
                        text=f'{by_name(peer)} tls = verify tls_ca = "{c.ca}" retry_interval = 1h\n'
                             'domain "trusting.test" { tls = required }')
        send(daemon)
        row = daemon.wait_lines("T", 1)[0]
        expect_equal(row[9], "17", "stage")
        expect(row[13].startswith("451 4.7.5 [internal] TLS handshake failed: certificate verify failed: ")
               and reason in row[13], row[13])
        expect_equal(peer.mails, [], "mail")
        send(daemon, "trusting.test")
        peer.wait(1)
        # The session that this one left is no proof for another domain.
        daemon.wait_lines("D", 1)
        send(daemon, "again.test")
        expect(reason in daemon.wait_lines("T", 2)[1][13], "a session was resumed")
    peer = Peer(flow, tls=c.server())
    daemon = Daemon(flow, text=f'{by_name(peer)} tls = verify tls_ca = "{c.ca}"')
    send(daemon)
    peer.wait(1)


def test_trusts_the_roots_of_the_system(flow):
    c = Certificates(flow)
    peer = Peer(flow, tls=c.server())
    daemon = Daemon(flow, text=f"{by_name(peer)} tls = verify retry_interval = 1h")
    send(daemon)
    expect("unable to get local issuer certificate" in daemon.wait_lines("T", 1)[0][13], "reason")


def test_hands_on_what_requires_tls(flow):
    """REQUIRETLS (RFC 8689): to a next hop that is verified and knows it, with the demand; else not at all."""
    c = Certificates(flow)
    offers = ("PIPELINING", "8BITMIME", "REQUIRETLS")
    good, silent = Peer(flow, tls=c.server(), offers=offers), Peer(flow, tls=c.server())
    home = Peer(flow)
    daemon = Daemon(flow, listener=tls_options(c), text=f"""tls = verify tls_ca = "{c.ca}"
domain "good.test" {{ {by_name(good)} }}
domain "silent.test" {{ {by_name(silent)} }}
domain "unverified.test" {{ {by_name(good)} tls = required }}
domain "plain.test" {{ {by_name(home)} tls = no }}
domain "sender.test" {{ {by_name(home)} tls = no }}""")
    client = daemon.connect()
    expect("REQUIRETLS" not in client.say("EHLO client.test", 250)[1].split("\n"), "offered without TLS")
    words = start_tls(client, c.client())
    expect("REQUIRETLS" in words, f"not offered: {words}")
    for domain in ("good", "silent", "unverified", "plain"):
        client.say("MAIL FROM:<from@sender.test> REQUIRETLS RET=FULL", 250)
        client.say(f"RCPT TO:<to@{domain}.test>", 250)
        client.say("DATA", 354)
        client.send("Subject: hello\r\n\r\nthe secret\r\n")
        client.say(".", 250)
    good.wait(1)
    expect_equal([line for _, line in good.said("MAIL")], ["MAIL FROM:<from@sender.test> REQUIRETLS"], "MAIL")
    reasons = sorted(row[13] for row in daemon.wait_lines("P", 3))
    expect_equal(reasons, ["550 5.7.30 [internal] the message requires TLS to a verified peer"] * 2
                 + ["550 5.7.30 [internal] the peer does not offer REQUIRETLS"], "reasons")
    expect_equal(silent.mails, [], "mail")
    # The sender is told, without what it said.
    for mail in home.wait(3):
        expect(b"5.7.30" in mail.data and b"the secret" not in mail.data, mail.data.decode())


def test_dane_is_opportunistic_without_records(flow):
    c = Certificates(flow)
    secure, plain = Peer(flow, tls=c.server(signed=False)), Peer(flow)
    for policy in ("", "tls = dane-or-opportunistic"):
        daemon = Daemon(flow, name=policy[-1:], text=f"""{policy}
domain "secure.test" {{ gateway = "127.0.0.1:{secure.port}" }}
domain "plain.test" {{ gateway = "127.0.0.1:{plain.port}" }}
domain "strict.test" {{ gateway = "127.0.0.1:{secure.port}" tls = dane }}""")
        send(daemon, "secure.test")
        send(daemon, "plain.test")
        daemon.wait_lines("D", 2)
        # An address has no TLSA records.
        send(daemon, "strict.test")
        row = daemon.wait_lines("T", 1)[0]
        expect(row[13].startswith("451 4.7.5 [internal] DANE is required"), row[13])
    expect_equal((len(secure.mails), len(secure.secured), len(plain.mails)), (2, 2, 2), "messages and handshakes")


def test_postfix_takes_mail_by_tls(flow):
    c = Certificates(flow)
    postfix = Postfix(flow)
    daemon = Daemon(flow, sink_port=postfix.port, text='domain "d1.example" { tls = required }')
    send(daemon, "d0.example")
    postfix.take("load", 1)
    send(daemon, "d1.example")
    expect("does not offer STARTTLS" in daemon.wait_lines("T", 1)[0][13], "reason")
    with (postfix.config / "main.cf").open("a") as file:
        file.write(f"""smtpd_tls_security_level = may
smtpd_tls_cert_file = {c.make("localhost")}
smtpd_tls_key_file = {c.key}
smtpd_tls_loglevel = 1
""")
    subprocess.run(["/usr/sbin/postfix", "-c", postfix.config, "reload"], check=True, capture_output=True)

    def by_tls():
        send(daemon, "d2.example", body=LARGE)
        return "TLS connection established from" in postfix.said()

    wait_until(by_tls, "TLS")
    postfix.take("load", 2)
    daemon.wait_lines("D", 2)
    expect(daemon.counter("scheduler.outbound.tls13") > 0, "no TLS")


def test_relays_by_tls_between_two_of_its_kind(flow):
    c = Certificates(flow)
    peer = Peer(flow)
    last = Daemon(flow, sink_port=peer.port, listener=tls_options(c, "localhost"), name="last")
    first = Daemon(flow, text=f'gateway = "localhost:{last.port}" tls = verify tls_ca = "{c.ca}"')
    for i in range(20):
        send(first, body=LARGE if i % 2 else HELLO)
    peer.wait(20)
    first.wait_for_rest()
    expect_equal(last.counter("scheduler.smtp_tls_failed"), 0, "failures")


test_relays_by_tls_between_two_of_its_kind.short = True


def volume(flow, load_option, listener_option, *sink_options):
    """Fwload to flywheeld to fwsink, all of it by TLS, on connections that come and go."""
    c = Certificates(flow)
    sink = Sink(flow, "--cert", c.make("localhost"), "--key", c.key, *sink_options)
    daemon = Daemon(flow, sink_port=sink.port, listener=f"{tls_options(c)} {listener_option}",
                    text="tls = required max_deliveries_per_connection = 50 memory_budget = 1M")
    load = flow.load(daemon, "--messages", 600, "--size", "100k", "--domains", 5, "--per-connection", 20, load_option)
    expect_equal((load["accepted"], load["protocol_errors"]), (600, 0), "accepted, errors")
    expect(load["tls_handshakes"] >= 30, f"handshakes: {load}")
    wait_until(lambda: sink.count("deliveries") >= 600, "deliveries")
    daemon.wait_for_rest()
    stats = sink.stop()
    expect_equal((stats["distinct"], stats["bad"], stats["duplicates"], stats["protocol_errors"]), (600, 0, 0, 0),
                 "distinct, bad, duplicates, errors")
    expect(stats["tls_handshakes"] >= 12 and stats["tls_resumed"] > 0, f"handshakes: {stats}")
    expect_equal(daemon.counter("scheduler.smtp_tls13"), load["tls_handshakes"], "handshakes of clients")


def test_carries_much_by_starttls(flow):
    volume(flow, "--starttls", "")


def test_carries_much_from_clients_that_begin_with_tls(flow):
    volume(flow, "--tls", "use_ssl = true")


test_carries_much_by_starttls.backends = ["uring", "epoll", "poll"]
test_carries_much_by_starttls.short = True


def test_sink_begins_with_tls_where_told(flow):
    c = Certificates(flow)
    sink = Sink(flow, "--cert", c.make("localhost"), "--key", c.key, "--tls")
    done = flow.run("fwload", "--to", f"127.0.0.1:{sink.port}", "--messages", 200, "--tls", "--json")
    expect('"accepted": 200' in done, done)
    flow.run("fwload", "--to", f"127.0.0.1:{sink.port}", "--messages", 1, "--timeout", 1, wanted=1)
    flow.run("fwsink", "--tls", wanted=2)
    stats = sink.stop()
    expect_equal((stats["messages"], stats["bad"]), (200, 0), "messages")


def test_load_needs_starttls_where_it_is_told_to_use_it(flow):
    sink = Sink(flow)
    text = flow.run("fwload", "--to", f"127.0.0.1:{sink.port}", "--messages", 1, "--starttls", wanted=1)
    expect("STARTTLS refused" in text or "502" in text, text)
