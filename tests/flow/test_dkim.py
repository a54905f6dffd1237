"""Mail is signed by DKIM, and programs that others wrote find the signatures good: dkimpy and OpenDKIM."""

import json
import pathlib
import random
import re
import shutil
import subprocess
import threading

from flow import PATIENCE, Daemon, Skip, expect, expect_equal
from peer import Peer

HERE = pathlib.Path(__file__).resolve().parent
# Debian's own, which has Debian's packages; the tests themselves may run with another one.
PYTHON = "/usr/bin/python3"
CANONS = ("relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple")
KINDS = ("rsa", "ed25519")
HEADERS = "from to subject date message-id x-mine references cc list-id"


class Keys:
    """A key of each kind, as an operator would make it."""

    def __init__(self, flow):
        self.paths = {}
        if not shutil.which("openssl"):
            raise Skip("openssl is not installed")
        for kind, options in (("rsa", ["rsa", "-pkeyopt", "rsa_keygen_bits:2048"]), ("ed25519", ["ed25519"])):
            self.paths[kind] = flow.path / f"{kind}.pem"
            subprocess.run(["openssl", "genpkey", "-algorithm", *options, "-out", self.paths[kind]], check=True,
                           capture_output=True, timeout=PATIENCE)


def records_of(flow, daemon):
    """TXT records by name, as `flywheeld --dkim-records` has them for a zone file."""
    text = flow.run("flywheeld", "--config", daemon.config, "--dkim-records")
    records = {}
    for line in text.splitlines():
        name, strings = re.fullmatch(r"(\S+)\. IN TXT \(((?: \"[^\"]{1,255}\")+) \)", line).groups()
        records[name] = "".join(re.findall(r'"([^"]*)"', strings))
    return records


def verify(flow, records, messages):
    """What each verifier says about each of `messages`, bytes by name."""
    folder = flow.path / f"verify-{len(list(flow.path.glob('verify-*')))}"
    folder.mkdir()
    (folder / "records.json").write_text(json.dumps(records))
    for name, data in messages.items():
        (folder / f"{name}.eml").write_bytes(data)
    done = subprocess.run([PYTHON, HERE / "dkim_verify.py", folder], capture_output=True, text=True,
                          timeout=PATIENCE * 5)
    if done.returncode == 77:
        raise Skip(done.stderr.strip())
    expect_equal(done.returncode, 0, f"status of dkim_verify.py ({done.stderr})")
    return json.loads(done.stdout)


def signatures(data):
    """The DKIM-Signature fields at the top, as dictionaries of their tags, and where they end."""
    found, at = [], 0
    for field in re.finditer(rb"DKIM-Signature: ((?:[^\r\n]|\r\n[ \t])*)\r\n", data):
        if field.start() != at:
            break
        at = field.end()
        text = re.sub(r"\s", "", field[1].decode())
        found.append(dict(tag.partition("=")[::2] for tag in text.split(";")))
    return found, at


def stuff(data):
    return re.sub(rb"(?m)^\.", b"..", data)


def text_of(rng):
    """A line with what canonicalization is about."""
    pieces = ["word", "a", " ", "  ", "\t", " \t ", ".", "..", "é", "x" * 70, "=20", ":", ";"]
    return "".join(rng.choice(pieces) for _ in range(rng.randrange(12)))


def header_of(rng, sender, number):
    """Fields in any order, folded, doubled, empty. Not: lines without a colon, and blanks before it, which
    dkimpy does not take; nor two of what RFC 5322 wants once, which OpenDKIM does not. The unit tests
    have them."""
    author = rng.choice(['From: <joe@{}>', 'From: Joe <joe@{}>', 'From: "Joe, (not) <a@b>" <joe@{}>',
                         'From: Joe\r\n\t <joe@{}>', 'from:joe@{}', 'FROM: joe@{} (Joe)'])
    subject = rng.choice([f"Subject: {number} {text_of(rng)}", "Subject:\r\n  folded  at\r\n \t once", "SUBJECT:"])
    fields = [author.format(sender), subject, "To:\r\n one@to.test,\r\n\ttwo@to.test",
              "Date: Mon, 23 Nov 2026 03:12:04 +0000", f"Message-ID: <{number}@{sender}>"]
    extra = ["X-Mine: 1", "X-MINE:", "x-mine: \t ", "X-Mine:\r\n\t1", "X-Mine: " + "y" * 4000, "X-Mine: .\r\n .x",
             "MIME-Version: 1.0", "CC: x@y.test", "References: <1@a>\r\n\t<2@b>\r\n <3@c>", "List-Id: <list.test>",
             "Content-Type: text/plain;\r\n\t charset=utf-8", "Content-Transfer-Encoding: 8bit", "Other: field",
             "Received: from a by b; today", "Sender:a@b.test"]
    fields += rng.sample(extra, rng.randrange(len(extra)))
    rng.shuffle(fields)
    return "".join(field + "\r\n" for field in fields)


def body_of(rng, number):
    shapes = [lambda: "", lambda: "\r\n", lambda: "\r\n" * rng.randrange(1, 300), lambda: " \r\n\t\r\n",
              lambda: "x" * rng.randrange(1, 8000) + "\r\n",
              lambda: "".join(text_of(rng) + "\r\n" for _ in range(rng.randrange(1, 60))) + "\r\n" * rng.randrange(4),
              lambda: ".\r\n..\r\n.dot\r\n. \r\n\r\n.\r\n",
              lambda: "".join(text_of(rng) + "\r\n" for _ in range(3000)),
              lambda: "last line \t \r\n \r\n\r\n", lambda: "a  b\tc \r\n" * rng.randrange(1, 900)]
    return shapes[number % len(shapes)]()


def odd_message(rng, sender, number):
    """Bytes as they are meant, without stuffed dots."""
    header = header_of(rng, sender, number)
    body = body_of(rng, number // 3)
    separator = "" if number % 29 == 0 else "\r\n"
    return (header + separator + (body if separator else "")).encode()


def send(daemon, messages):
    """In pieces of any size, so that lines are torn."""
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    for message in messages:
        client.say("MAIL FROM:<bounce@sender.test> BODY=8BITMIME", 250)
        client.say("RCPT TO:<to@to.test>", 250)
        client.say("DATA", 354)
        data = stuff(message)
        while data:
            size = random.randrange(1, 9000)
            client.send(data[:size])
            data = data[size:]
        client.say(".", 250)


def flip(data, where):
    return data[:where] + bytes([data[where] ^ 1]) + data[where + 1:]


def flips(data):
    """With one bit changed: in a field that is signed, and in the body if that has something to see."""
    _, top = signatures(data)
    header, separator, body = data[top:].partition(b"\r\n\r\n")
    value = re.search(rb"(?im)^message-id:.*@([a-z])", header)
    yield "header", flip(data, top + value.start(1))
    visible = list(re.finditer(rb"[a-zA-Z=]", body))
    if visible:
        at = random.choice(visible).start()
        yield "body", flip(data, top + len(header) + len(separator) + at)


def test_signatures_are_good_for_others(flow):
    keys = Keys(flow)
    domains = {f"{canon.replace('/', '-')}.{kind}.test": (canon, kind) for canon in CANONS for kind in KINDS}
    stanzas = "".join(f'dkim "{name}" {{ selector = "s-{kind}" key = "{keys.paths[kind]}" '
                      f'canonicalization = "{canon}" headers = ( {HEADERS} ) }}\n' for name, (canon, kind) in domains.items())
    both = f'''dkim "both.test" {{
        selector = "one" key = "{keys.paths['rsa']}" oversign = ( from subject x-never )
        signature "two" {{ key = "{keys.paths['ed25519']}" canonicalization = simple/simple expiration = "14d" }}
    }}\n'''
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text=stanzas + both)
    records = records_of(flow, daemon)
    expect_equal(len(records), len(domains) + 2, "records")
    rng = random.Random(6376)
    senders = [*domains, "both.test"]
    wanted = [odd_message(rng, senders[i % len(senders)], i) for i in range(200)]
    send(daemon, wanted)
    peer.wait(len(wanted))
    found = {}
    for mail in peer.mails:
        number = int(re.search(rb"(?m)^Message-ID: <(\d+)@", mail.data)[1])
        tags, top = signatures(mail.data)
        received, rest = re.fullmatch(rb"(Received: (?:[^\r]|\r\n[ \t])*\r\n)(.*)", mail.data[top:], re.S).groups()
        expect(b"flow.test" in received, f"the first field is {received!r}")
        expect_equal(rest, wanted[number], f"message {number} behind its signatures")
        sender = senders[number % len(senders)]
        algorithms = ["rsa", "ed25519"] if sender == "both.test" else [domains[sender][1]]
        expect_equal([t["a"] for t in tags], [f"{a}-sha256" for a in algorithms], f"algorithms of {number}")
        expect_equal({t["d"] for t in tags}, {sender}, f"domains of {number}")
        for line in mail.data[:top].split(b"\r\n"):
            expect(len(line.expandtabs(8)) <= 78, f"a line of the signature is long: {line!r}")
        found[f"{number:03}"] = mail.data
    expect_equal(len(found), len(wanted), "different messages")
    verdicts = verify(flow, records, found)
    bad = {name: v for name, v in verdicts.items() if set(v.values()) != {"good"}}
    expect_equal((len(verdicts), bad), (len(wanted), {}), "verdicts")
    changed = {f"{name}-{what}": data for name, mail in found.items() for what, data in flips(mail)}
    expect(len(changed) > 300, f"{len(changed)} changed messages")
    verdicts = verify(flow, records, changed)
    fooled = {name: v for name, v in verdicts.items() if "good" in v.values()}
    expect_equal((len(verdicts), fooled), (len(changed), {}), "verdicts about changed messages")
    expect_equal(daemon.counter("scheduler.dkim_signed"), len(wanted), "messages signed")


HELLO = "From: joe@{}\r\nDate: Mon, 23 Nov 2026 03:12:04 +0000\r\nSubject: hello\r\nX-Mine: yes\r\n\r\nhello\r\n"


def tags_of(peer):
    """Those of each signature of the last message."""
    return signatures(peer.mails[-1].data)[0]


def test_signs_as_configured(flow):
    keys = Keys(flow)
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text=f'''dkim "Sender.test" {{
        selector = "one" key = "{keys.paths['rsa']}"
        headers = ( From X-Mine X-Not ) oversign = ( From Cc ) expiration = "2h"
        signature "two" {{ key = "{keys.paths['ed25519']}" canonicalization = "simple/relaxed" headers = ( from ) }}
    }}
    dkim "plain.test" {{ selector = "p" key = "{keys.paths['ed25519']}" }}''')
    send(daemon, [HELLO.format("SENDER.test").encode(), HELLO.format("plain.test").encode()])
    peer.wait(2)
    mails = {re.search(rb"joe@(\w+)", m.data)[1].lower(): m.data for m in peer.mails}
    one, two = signatures(mails[b"sender"])[0]
    expect_equal([(t["v"], t["d"], t["s"], t["a"], t["c"], t["h"]) for t in (one, two)],
                 [("1", "sender.test", "one", "rsa-sha256", "relaxed/relaxed", "from:from:x-mine:cc"),
                  ("1", "sender.test", "two", "ed25519-sha256", "simple/relaxed", "from:from:cc")], "signatures")
    for tags in (one, two):
        expect_equal(int(tags["x"]) - int(tags["t"]), 7200, "seconds to the expiration")
        expect(not {"l", "i", "z"} & set(tags), f"tags {tags}")
    plain, = signatures(mails[b"plain"])[0]
    expect_equal((plain["c"], plain["h"], "x" in plain), ("relaxed/relaxed", "from:from:subject:date", False), "defaults")
    verdicts = verify(flow, records_of(flow, daemon), {n.decode(): data for n, data in mails.items()})
    expect_equal({tuple(v.values()) for v in verdicts.values()}, {("good", "good")}, "verdicts")


def test_signs_for_the_domain_of_the_author(flow):
    keys = Keys(flow)
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text="".join(
        f'dkim "{name}" {{ selector = "s" key = "{keys.paths["ed25519"]}" }}\n' for name in ("sender.test", "x.sender.test")))
    client = daemon.connect()
    authors = (("sender.test", "sender.test"), ("www.sender.test", "sender.test"),
               ("x.sender.test", "x.sender.test"), ("y.x.sender.test", "x.sender.test"),
               ("xsender.test", None), ("other.test", None), ("test", None))
    for count, (author, domain) in enumerate(authors, 1):
        client.mail("to@to.test", sender="bounce@sender.test", body=HELLO.format(author))
        peer.wait(count)
        expect_equal([t["d"] for t in tags_of(peer)], [domain] if domain else [], f"signed for {author}")
    # Nobody's, two authors', and one with more fields than there can be.
    crowd = "X: y\r\n" * 1000
    bodies = ("Subject: x\r\n\r\nx\r\n", "From: a@sender.test\r\nFrom: b@sender.test\r\n\r\nx\r\n",
              "From: nobody\r\n\r\nx\r\n", f"From: a@sender.test\r\n{crowd}\r\nx\r\n")
    for count, body in enumerate(bodies, len(authors) + 1):
        client.mail("to@to.test", sender="bounce@sender.test", body=body)
        peer.wait(count)
        expect_equal(tags_of(peer), [], "signatures")
        expect(peer.mails[-1].data.endswith(body.encode()), "the message was changed")
    stats = daemon.console("signing_stats")
    expect_equal((stats["signed_messages"], stats["signatures"], stats["failed_signatures"]), (4, 4, 0), "counts")
    expect_equal(stats["unsigned_messages"], {"without_one_author": 3, "domain_without_key": 3, "too_many_fields": 1,
                                              "signing_failed": 0}, "not signed")
    expect_equal([(k["domain"], k["selector"], k["key"]) for k in stats["keys"]],
                 [("sender.test", "s", "ed25519"), ("x.sender.test", "s", "ed25519")], "keys")
    expect(0 < stats["signing_time_p50_us"] <= stats["signing_time_max_us"], f"times {stats}")


def test_does_not_sign_where_told_not_to(flow):
    keys = Keys(flow)
    for name, text, listener, wanted in (
            ("on", "", "", [1, 1]),
            ("global", "dkim_sign = false", "", [0, 0]),
            ("peer", "", 'peer "127.0.0.2/32" { dkim_sign = false }', [1, 0]),
            ("but", "dkim_sign = false", 'peer "127.0.0.2/32" { dkim_sign = true }', [0, 1])):
        peer = Peer(flow)
        daemon = Daemon(flow, sink_port=peer.port, name=name, listener=listener, text=f'''{text}
            dkim "sender.test" {{ selector = "s" key = "{keys.paths['ed25519']}" }}''')
        for mails, source, signed in zip((1, 2), ("127.0.0.1", "127.0.0.2"), wanted):
            daemon.connect(source=source).mail("to@to.test", body=HELLO.format("sender.test"))
            peer.wait(mails)
            expect_equal(len(tags_of(peer)), signed, f"signatures, {name}, {source}")


def test_signs_its_own_notifications(flow):
    keys = Keys(flow)
    home, bad = Peer(flow), Peer(flow, rcpt="550 5.1.1 no such user")
    daemon = Daemon(flow, text=f'''mailerdaemon = "mailer-daemon@mail.flow.test"
        domain "sender.test" {{ gateway = "127.0.0.1:{home.port}" }}
        domain "bad.test" {{ gateway = "127.0.0.1:{bad.port}" }}
        dkim "flow.test" {{ selector = "s" key = "{keys.paths['rsa']}" }}''')
    daemon.connect().mail("to@bad.test", body="From: joe@sender.test\r\n\r\n.dot\r\n")
    mail, = home.wait(1)
    expect_equal((mail.sender, mail.recipients), ("", ["from@sender.test"]), "envelope")
    expect_equal([t["d"] for t in tags_of(home)], ["flow.test"], "signed for")
    expect_equal(verify(flow, records_of(flow, daemon), {"bounce": mail.data}),
                 {"bounce": {"dkimpy": "good", "opendkim": "good"}}, "verdict")


def test_signed_mail_is_kept_as_it_was_signed(flow):
    """A retry, and a start in between, sends the same signature."""
    keys = Keys(flow)
    peer = Peer(flow, dot="451 4.3.0 later")
    daemon = Daemon(flow, sink_port=peer.port, text=f'''retry_interval = "1s" memory_budget = "1M"
        dkim "sender.test" {{ selector = "s" key = "{keys.paths['rsa']}" canonicalization = "simple/simple" }}''')
    body = HELLO.format("sender.test") + "..dots\r\n" * 1000
    expect_equal(daemon.connect().mail("to@to.test", body=body)[0], 250, "reply")
    daemon.wait_lines("T", 1)
    daemon.kill()
    peer.replies.clear()
    daemon.start()
    mail = peer.wait(1)[0]
    expect_equal(verify(flow, records_of(flow, daemon), {"mail": mail.data}),
                 {"mail": {"dkimpy": "good", "opendkim": "good"}}, "verdict")


def test_start_needs_good_keys(flow):
    daemon = Daemon(flow, start=False, text='dkim "a.test" { selector = "s" key = "/nowhere/key.pem" }')
    line = daemon.config.read_text().split("\n").index('dkim "a.test" { selector = "s" key = "/nowhere/key.pem" }') + 1
    for option in ("--check", "--dkim-records"):
        text = flow.run("flywheeld", "--config", daemon.config, option, wanted=1)
        expect(f'{daemon.config}:{line}: option "key": "/nowhere/key.pem": No such file or directory' in text,
               f"{option} said {text!r}")


def kinds_and_sizes(daemon):
    return [(k["key"], k["key_bits"]) for k in daemon.console("signing_stats")["keys"]]


def test_keys_are_taken_up_by_reload(flow):
    """RSA becomes Ed25519 under the same selector while mail flows; then a file is broken, then missing."""
    keys = Keys(flow)
    current, other = flow.path / "current.pem", flow.path / "other.pem"
    shutil.copy(keys.paths["rsa"], current)
    shutil.copy(keys.paths["rsa"], other)
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text=f'''
        dkim "sender.test" {{ selector = "s" key = "{current}" }}
        dkim "other.test" {{ selector = "s" key = "{other}" }}''')
    old = records_of(flow, daemon)
    expect_equal(daemon.console("dkim", "reload"), {"keys_reloaded": 0, "keys_unchanged": 2}, "nothing is new")
    sent, begun, answered = 0, threading.Event(), threading.Event()

    def flood():
        nonlocal sent
        client = daemon.connect()
        client.say("EHLO client.test", 250)
        # Some before, some meanwhile, some perhaps after the answer.
        while sent < 20 or not answered.is_set():
            client.mail("to@to.test", body=HELLO.format("sender.test"), ehlo=False)
            sent += 1
            if sent == 10:
                begun.set()

    floods = threading.Thread(target=flood)
    floods.start()
    expect(begun.wait(PATIENCE), "no mail flows")
    shutil.copy(keys.paths["ed25519"], current)
    expect_equal(kinds_and_sizes(daemon), [("rsa", 2048), ("rsa", 2048)], "taken up unasked")
    try:
        expect_equal(daemon.console("dkim", "reload"), {"keys_reloaded": 1, "keys_unchanged": 1}, "answer")
    finally:
        answered.set()
        floods.join()
    new = records_of(flow, daemon)
    expect(old["s._domainkey.sender.test"] != new["s._domainkey.sender.test"], "the records are the same")
    expect_equal(kinds_and_sizes(daemon), [("ed25519", 256), ("rsa", 2048)], "keys")
    expect(sent >= 20, f"mail flowed no more after {sent}")
    peer.wait(sent)
    by_old, by_new = {}, {}
    for number, mail in enumerate(peer.mails):
        tags, = signatures(mail.data)[0]
        expect(tags["a"] in ("rsa-sha256", "ed25519-sha256"), f"algorithm of {tags}")
        (by_old if tags["a"] == "rsa-sha256" else by_new)[f"{number:05}"] = mail.data
    expect(len(by_old) >= 10, f"{len(by_old)} messages before")
    after = [HELLO.format("sender.test").encode()] * 20
    send(daemon, after)
    peer.wait(sent + len(after))
    for number, mail in enumerate(peer.mails[sent:], sent):
        by_new[f"{number:05}"] = mail.data
    for name, records, mails in (("old", old, by_old), ("new", new, by_new)):
        bad = {n: v for n, v in verify(flow, records, mails).items() if set(v.values()) != {"good"}}
        expect_equal(bad, {}, f"verdicts, {name} key")
    # The new key of one file does not come in while the other file cannot be used.
    shutil.copy(keys.paths["rsa"], current)
    for broken, why in ((lambda: other.write_text("rubbish"), "has no private key in PEM"),
                        (lambda: other.unlink(), "No such file or directory")):
        broken()
        answer = daemon.console("dkim", "reload", fail=True)
        expect(f'nothing has changed: "{other}": {why}' in answer, answer)
        expect_equal(kinds_and_sizes(daemon), [("ed25519", 256), ("rsa", 2048)], "keys")
    count = len(peer.mails)
    send(daemon, [HELLO.format(name).encode() for name in ("sender.test", "other.test")])
    peer.wait(count + 2)
    last = {f"last-{i}": m.data for i, m in enumerate(peer.mails[count:])}
    expect_equal({tuple(v.values()) for v in verify(flow, new, last).values()}, {("good", "good")}, "verdicts at the end")
    expect_equal(daemon.counter("scheduler.dkim_failed"), 0, "signatures that failed")


test_signs_as_configured.short = True
test_signs_its_own_notifications.short = True
