"""What the logs are told: events as text, as JSON and by formats of one's own, to one place or several."""

import json
import pathlib
import re
import subprocess
import time

from certificates import Certificates
from flow import PATIENCE, ROOT, Daemon, Skip, expect, expect_equal, wait_until
from peer import Peer
from test_bouncelog import dsn, give
from test_dkim import Keys
from test_extensions import USERS, credentials

HERE = pathlib.Path(__file__).resolve().parent
# Debian's own, which has Debian's packages; the tests themselves may run with another one.
PYTHON = "/usr/bin/python3"
HELLO = "Subject: hello\r\n\r\nhello\r\n"
KINDS = ("reception delivery transient_failure bounce out_of_band feedback rejection expiration "
         "administrative_failure authentication heartbeat").split()
JSON_LOGS = " ".join(f'{log} = ( "file:{file}" "json:events.json" )' for log, file in (
    ("main", "mainlog"), ("bounce", "bouncelog"), ("reject", "rejectlog"), ("fbl", "fbllog"), ("acct", "acctlog")))
COMPLAINT = """From: <fbl@provider.test>
Content-Type: multipart/report; report-type=feedback-report; boundary=b

--b
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: Complaints/2.0
Original-Rcpt-To: <to@provider.test>

--b--
""".replace("\n", "\r\n")


def events(daemon, kind=None, file="events.json"):
    path = daemon.log / file
    text = path.read_bytes().decode() if path.exists() else ""
    # The last line may be half written.
    found = [json.loads(line) for line in text.split("\n")[:-1]]
    return [e for e in found if kind in (None, e["type"])]


def wait_events(daemon, kind, count=1, file="events.json"):
    wait_until(lambda: len(events(daemon, kind, file)) >= count, f"{count} events {kind} in {file}")
    return events(daemon, kind, file)


def wait_text(daemon, file, count):
    """The first `count` lines of a log."""
    path = daemon.log / file

    def lines():
        return path.read_text().split("\n")[:-1] if path.exists() else []
    wait_until(lambda: len(lines()) >= count, f"{count} lines in {file}")
    return lines()


def validate(daemon, file="events.json"):
    done = subprocess.run([PYTHON, HERE / "validate_events.py", ROOT / "config/events.schema.json", daemon.log / file],
                          capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode == 77:
        raise Skip(done.stderr.strip())
    expect_equal(done.returncode, 0, f"status of validate_events.py ({done.stdout[:2000]}{done.stderr})")


def check(event, wanted):
    found = {key: event.get(key) for key in wanted}
    expect_equal(found, wanted, f"fields of {event}")


class Everything:
    """A program to which everything happens once that an event tells of."""

    def __init__(self, flow, logs):
        said = {"gone": "550 5.1.1 no such user", "later": "451 4.2.1 later", "old": "451 4.2.1 never",
                "failed": "451 4.2.1 not yet"}
        certificates = Certificates(flow)
        keys = Keys(flow)
        users = flow.path / "users"
        users.write_text(USERS)
        self.peer = Peer(flow, tls=certificates.server(), rcpt=lambda x: said.get(x.rcpt.split("@")[0], True))
        self.daemon = Daemon(
            flow, sink_port=self.peer.port, listener=f'auth_file = "{users}" allow_plain_auth = true',
            text=f'''log {{ {logs} heartbeat = "20ms" context_headers = ( "X-Tenant" ) }}
            bounce_domains = ( "b.flow.test" ) generate_bounces = false retry_interval = "1h"
            binding_group "promo" {{ binding "north" {{ bind_address = "127.0.0.9" }} }} binding_header = "X-Binding"
            dkim "sender.test" {{ selector = "s" key = "{keys.paths['ed25519']}" }}
            domain "old.test" {{ message_expiration = "300ms" retry_interval = "100ms" }}''')

    def happen(self):
        d = self.daemon
        client = d.connect()
        client.say("EHLO client.test", 250)
        client.say(f"AUTH PLAIN {credentials('', 'sha', 'open sesame')}", 235)
        mail = "From: <from@sender.test>\r\nX-Binding: north\r\nX-Tenant: t\xe9nant\r\n" + HELLO
        self.id = client.mail(["to@away.test"], body=mail.encode("latin-1"), ehlo=False)[1].split()[-1]
        self.peer.wait(1)
        d.connect().mail(["gone@away.test", "later@away.test"], body=HELLO)
        d.connect().mail("old@old.test", body=HELLO)
        failed = d.connect().mail("failed@held.test", body=HELLO)[1].split()[-1]
        wait_until(lambda: d.console("domain", "held.test")["queue"]["delayed"] == 1, "a delayed message")
        d.console("message", "fail", failed)
        give(d, "bounce@b.flow.test", dsn())
        give(d, "fbl@b.flow.test", COMPLAINT)
        client = d.connect()
        client.say("EHLO client.test", 250)
        client.say("RCPT TO:<to@away.test>", 503)
        client.say("MAIL FROM:<a@sender.test>", 250)
        client.say("RCPT TO:<not an address", 501)


def test_every_kind_of_event_is_json(flow):
    x = Everything(flow, JSON_LOGS)
    x.happen()
    deferred = {"later@away.test", "failed@held.test"}
    wait_until(lambda: deferred <= {e["recipient"] for e in events(x.daemon, "transient_failure")}, "both deferred")
    found = {kind: wait_events(x.daemon, kind) for kind in KINDS}
    validate(x.daemon)
    now_ms = time.time() * 1000
    for kind, rows in found.items():
        expect(all(abs(now_ms - e["time_ms"]) < 600000 for e in rows), f"times of {kind}")
    connection = found["reception"][0]["connection"]
    shared = {"id": x.id, "recipient": "to@away.test", "sender": "from@sender.test", "binding": "north",
              "binding_group": "promo", "dkim_domains": ["sender.test"], "context": {"x-tenant": "t�nant"}}
    check(found["reception"][0], {
        **shared, "protocol": "esmtp", "remote_ip": "127.0.0.1", "remote_name": "client.test",
        "local_address": f"127.0.0.1:{x.daemon.port}", "user": "sha", "auth_method": "PLAIN", "headers": None})
    delivery = next(e for e in found["delivery"] if e["id"] == x.id)
    check(delivery, {
        **shared, "domain": "away.test", "attempt": 1, "remote_ip": "127.0.0.1", "local_address": "127.0.0.9",
        "tls_verification": "none", "code": 250,
        "site": f"gateway 10 127.0.0.1:{x.peer.port}", "stage": None})
    expect(delivery["tls_version"].startswith("TLSv1.") and delivery["size_bytes"] > len(HELLO)
           and delivery["queued_ms"] < 600000, f"{delivery}")
    check(found["bounce"][0], {
        "recipient": "gone@away.test", "code": 550, "enhanced_status": "5.1.1", "text": "550 5.1.1 no such user",
        "stage": 4, "stage_name": "during RCPT TO", "bounce_class": 10, "bounce_class_name": "Invalid Recipient"})
    check(found["expiration"][0], {"recipient": "old@old.test", "enhanced_status": "5.4.7", "code": 554})
    check(found["administrative_failure"][0], {"recipient": "failed@held.test", "code": 554})
    check(found["out_of_band"][0], {"recipient": "to@away.test", "permanent": True, "bounce_class": 10,
                                    "sender": "bounce@b.flow.test", "stage": 21})
    check(found["feedback"][0], {"recipient": "to@provider.test", "feedback_type": "abuse", "reporter": "provider.test",
                                 "user_agent": "Complaints/2.0"})
    check(found["authentication"][0], {"user": "sha", "granted": True, "auth_method": "PLAIN", "connection": connection})
    wait_until(lambda: {503, 501} <= {e["code"] for e in events(x.daemon, "rejection")}, "both rejections")
    # Of two logs that want the same event, one object is enough.
    for kind in ("bounce", "expiration", "administrative_failure"):
        expect_equal(len(events(x.daemon, kind)), 1, f"events {kind}")


test_every_kind_of_event_is_json.short = True


def test_text_and_json_tell_the_same(flow):
    """Each line of the text logs has its object, field by field."""
    x = Everything(flow, JSON_LOGS)
    x.happen()
    for kind in KINDS:
        wait_events(x.daemon, kind)
    expect_equal(x.daemon.terminate()[0], 0, "exit status")
    every = events(x.daemon)

    def prefix(e):
        return [str(e["time_ms"] // 1000), e.get("id", ""), e.get("batch", ""), e.get("connection", "")]

    def halves(address):
        return address.rsplit("@", 1) if "@" in address else [address, ""]

    def attempt(e, kind):
        row = prefix(e) + [kind, e["domain"], str(e["size_bytes"]), e["binding_group"], e["binding"]]
        row += [str(e["stage"])] if kind != "D" else []
        row += [str(e["attempt"] - 1), str(e["queued_ms"] // 1000), e.get("remote_ip", "")]
        if kind != "D":
            return row + [e["text"]]
        return row + [":".join(e[f"tls_{n}"] for n in ("version", "cipher", "verification"))] * ("tls_version" in e)

    def main(e):
        kind = {"reception": "R", "delivery": "D", "transient_failure": "T", "bounce": "P", "expiration": "P",
                "administrative_failure": "P"}.get(e["type"])
        if kind == "R":
            return prefix(e) + ["R", *halves(e["recipient"]), *halves(e["sender"]), e.get("remote_ip", ""),
                                str(e["size_bytes"]), e["protocol"], e["binding_group"], e["binding"]]
        return attempt(e, kind) if kind else None

    def bounce(e):
        kind = {"transient_failure": "T", "bounce": "B", "expiration": "B", "administrative_failure": "B",
                "out_of_band": "B"}.get(e["type"])
        return kind and prefix(e) + [kind, *halves(e["recipient"]), *halves(e["sender"]), e["binding_group"],
                                     e["binding"], str(e["stage"]), str(e["bounce_class"]), str(e["size_bytes"]),
                                     e.get("remote_ip", ""), e["text"]]

    def rejection(e):
        return e["type"] == "rejection" and prefix(e) + [
            "J", e["remote_ip"], str(e["stage"]), str(e["code"]), *halves(e.get("sender", "")),
            *halves(e.get("recipient", "")), e["text"]]

    for file, row in (("mainlog", main), ("bouncelog", bounce), ("rejectlog", rejection)):
        lines = [line for line in x.daemon.lines(file=file) if line[4] != "M1"]
        expect_equal(sorted(lines), sorted(filter(None, map(row, every))), file)
    expect_equal([line[3:] for line in x.daemon.lines(file="acctlog")], [["127.0.0.1", "sha", "1"]], "acctlog")


def test_a_log_may_go_to_two_places_or_nowhere(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text='''log {
        main = ( "file:mainlog" "file:copies/second" "json:main.json" ) bounce = ( ) reject = "json:refused.json"
        panic = ( "file:trouble" "file:paniclog" ) fbl = ( ) acct = "file:who" heartbeat = "20ms" }''', start=False)
    (daemon.log / "copies").mkdir(parents=True)
    daemon.start()
    code, text = daemon.connect().mail(["a@far.test", "b@far.test"], body=HELLO)
    expect_equal(code, 250, f"reply ({text})")
    daemon.connect().say("MAIL FROM:<a@b.test>", 503)
    daemon.wait_lines("D", 2)
    wait_events(daemon, "delivery", 2, "main.json")
    wait_events(daemon, "rejection", 1, "refused.json")
    wait_text(daemon, "mainlog", 6)
    expect_equal(daemon.terminate()[0], 0, "exit status")
    expect_equal((daemon.log / "copies/second").read_text(), (daemon.log / "mainlog").read_text(), "the copy")
    expect_equal(len(events(daemon, "reception", "main.json")), 2, "receptions")
    expect_equal((daemon.log / "trouble").read_text(), (daemon.log / "paniclog").read_text(), "paniclog's copy")
    there = {str(p.relative_to(daemon.log)) for p in daemon.log.rglob("*") if p.is_file()}
    expect_equal(there, {"mainlog", "copies/second", "main.json", "refused.json", "trouble", "paniclog", "who"}, "files")


def test_says_what_is_wrong_with_destinations(flow):
    cases = (
        ('main = ( "file:x" "file:x" )', '"file:x" is named twice'),
        ('main = ( "file:x" "json:x" )', '"json:x" is named twice'),
        ('main = "file:x" bounce = "file:x"', '"file:x" is another log\'s already'),
        ('main = "mainlog"', '"mainlog" is of no kind that is known'),
        ('main = "tape:x"', '"tape:x" is of no kind that is known'),
        ('main = "file:"', '"file:" has no name'),
        ('main = "file:../x"', '"file:../x" has'),
        ('main = "file:/var/../x"', '"file:/var/../x" has'),
        ('main = "json:a//b"', '"json:a//b" has'),
        ('panic = "json:p"', '"json:p" is JSON'),
    )
    for number, (text, wanted) in enumerate(cases):
        daemon = Daemon(flow, name=str(number), start=False, text=f"log {{\n{text}\n}}")
        line = daemon.config.read_text().split("\n").index(text) + 1
        done = subprocess.run([flow.program("flywheeld"), "--config", daemon.config, "--check"], capture_output=True,
                              text=True, timeout=PATIENCE)
        expect_equal(done.returncode, 1, f"status of --check with {text}")
        said = done.stdout + done.stderr
        expect(f"{daemon.config}:{line}: " in said and wanted in said, f"{text}: {said}")


MACROS = ("%t %t{%Y} %us{2} %i %BI %CI %r %R %m %M %b %g %B %H %P %h{X-Mine} %h{Subject} %n %N %p %s %S %c %C %d %A %U "
          "%T %T{0} %vctx_mess{x-tenant} %vctx_conn{x} %%").split()


def custom(stage, macros=MACROS):
    return f'{stage}_format = "{stage}|{"|".join(macros)}"'


def test_custom_loggers_know_every_macro(flow):
    stages = "reception delivery transient_failure permanent_failure rejection".split()
    said = {"gone": "550 5.1.1 no|such user", "later": "451 4.2.1 later"}
    users = flow.path / "users"
    users.write_text(USERS)
    peer = Peer(flow, rcpt=lambda x: said.get(x.rcpt.split("@")[0], True))
    formats = "\n".join(custom(stage) for stage in stages)
    daemon = Daemon(flow, sink_port=peer.port, listener=f'auth_file = "{users}" allow_plain_auth = true', text=f'''
        generate_bounces = false retry_interval = "1h" log {{ context_headers = ( "X-Tenant" ) }}
        custom_logger "all" {{ mainlog = "file:all.log" {formats} sanitize = ( "special_characters" "tr/-/_/" ) }}
        custom_logger "some" {{ delivery_logfile = "file:some.log" delivery_format = "%i%%%h{{x-MINE}}" }}''')
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    client.say(f"AUTH PLAIN {credentials('', 'sha', 'open sesame')}", 235)
    body = ("X-Mine: one\r\n two\r\nx-mine: second\r\nSubject: it's; here\r\nX-Tenant: t-1\r\n\r\nhello\r\n")
    id_ = client.mail(["to@away.test", "gone@away.test", "later@away.test"], sender="from@sender.test", body=body,
                      ehlo=False)[1].split()[-1]
    client.say("RCPT TO:<to@away.test>", 503)
    lines = wait_text(daemon, "all.log", 7)
    expect_equal(wait_text(daemon, "some.log", 1), [f"{id_}%one two"], "the other logger")
    rows = {}
    for line in lines:
        values = re.split(r"(?<!\\)\|", line)
        rows[values[0], values[1 + MACROS.index("%r")]] = dict(zip(MACROS, values[1:], strict=True))
    expect_equal({stage for stage, _ in rows}, set(stages), "stages")
    known = {"%i": id_, "%R": "away.test", "%m": "from", "%M": "sender.test", "%b": "default", "%g": "default",
             "%H": "127.0.0.1", "%h{X-Mine}": "one two", "%h{Subject}": r"it\'s\; here", "%vctx_mess{x-tenant}": "t_1",
             "%vctx_conn{x}": "", "%%": "%"}
    for key, wanted in (
            (("reception", "to"), {"%p": "esmtp", "%U": "sha", "%A": "PLAIN", "%P": f"127.0.0.1:{daemon.port}"}),
            (("delivery", "to"), {"%N": "1", "%d": "away.test", "%c": "", "%C": "", "%p": ""}),
            (("permanent_failure", "gone"), {"%n": r"550 5.1.1 no\|such user", "%s": "during RCPT TO", "%S": "4",
                                             "%c": "Invalid Recipient", "%C": "10"}),
            (("transient_failure", "later"), {"%n": "451 4.2.1 later", "%C": "70"})):
        row = rows[key]
        check(row, {**known, **wanted, "%r": key[1]})
        expect(int(row["%B"]) > len(body) and abs(int(row["%t"]) - time.time()) < 600, f"{row}")
        expect(re.fullmatch(r"\d+\.\d\d", row["%us{2}"]) and re.fullmatch(r"20\d\d", row["%t{%Y}"])
               and re.fullmatch(r"\d+\.\d\d", row["%T"]) and re.fullmatch(r"\d+", row["%T{0}"]), f"{row}")
    row = rows["reception", "to"]
    expect(re.fullmatch("[0-9a-f]+", row["%BI"]) and re.fullmatch("[0-9a-f]+", row["%CI"]), f"{row}")
    [row] = [row for (stage, _), row in rows.items() if stage == "rejection"]
    check(row, {"%i": "", "%h{X-Mine}": "", "%H": "127.0.0.1"})


def test_each_stage_has_a_file_of_its_own(flow):
    said = {"gone": "550 5.1.1 no", "later": "451 4.2.1 later"}
    peer = Peer(flow, rcpt=lambda x: said.get(x.rcpt.split("@")[0], True))
    stages = "reception delivery transient_failure permanent_failure rejection".split()
    text = "\n".join(f'{s}_logfile = "file:{s}" {custom(s, ["%r"])}' for s in stages)
    daemon = Daemon(flow, sink_port=peer.port, text=f'''generate_bounces = false retry_interval = "1h"
        custom_logger "each" {{ {text} }}''')
    client = daemon.connect()
    client.mail(["to@away.test", "gone@away.test", "later@away.test"], body=HELLO)
    client.say("DATA", 503)
    wanted = {"reception": ["gone", "later", "to"], "delivery": ["to"], "transient_failure": ["later"],
              "permanent_failure": ["gone"], "rejection": [""]}
    for stage, names in wanted.items():
        expect_equal(sorted(wait_text(daemon, stage, len(names))), [f"{stage}|{n}" for n in names], stage)


def test_says_what_is_wrong_with_custom_loggers(flow):
    cases = (
        ('custom_logger "x" { mainlog = "file:x" delivery_format = "%i %q" }', '"%q" is unknown'),
        ('custom_logger "x" { mainlog = "file:x" delivery_format = "%h{}" }', "expected 1 to 63 characters"),
        ('custom_logger "x" { delivery_format = "%i" }', 'option "delivery_logfile": missing'),
        ('custom_logger "x" { mainlog = "file:mainlog" delivery_format = "%i" }', "is another log's already"),
        ('custom_logger "x" { mainlog = "json:x" delivery_format = "%i" }', "is JSON"),
        ('custom_logger "x" { mainlog = "file:x" delivery_format = "%i" sanitize = "tr/a/" }', "is no tr/FROM/TO/"),
        ('custom_logger "x" { mainlog = "file:x" delivery_format = "%i" rejection_logfile = "file:LOGS/x" rejection_format = "%i" }',
         "is spelled in two ways"),
        ('log { main = ( "file:mainlog" "json:a" ) bounce = ( "json:LOGS/a" ) }', "is spelled in two ways"),
        ('custom_logger "x" { mainlog = "file:x" delivery_format = "%i" sanitize = "all" }', '"all" is unknown'),
    )
    for number, (text, wanted) in enumerate(cases):
        text = text.replace("LOGS", str(flow.path / f"log{number}"))
        daemon = Daemon(flow, name=str(number), start=False, text=text)
        line = daemon.config.read_text().split("\n").index(text) + 1
        done = subprocess.run([flow.program("flywheeld"), "--config", daemon.config, "--check"], capture_output=True,
                              text=True, timeout=PATIENCE)
        expect_equal(done.returncode, 1, f"status of --check with {text}")
        said = done.stdout + done.stderr
        expect(f"{daemon.config}:{line}: " in said and wanted in said, f"{text}: {said}")


def test_captured_headers_survive_a_restart(flow):
    """They are kept with the message, bounded, and no log reads a body."""
    answer = ["451 4.2.1 later"]
    peer = Peer(flow, rcpt=lambda x: answer[0])
    text = '''retry_interval = "1h" log { main = ( "file:mainlog" "json:main.json" ) context_headers = ( "X-Long" ) }
        custom_logger "x" { delivery_logfile = "file:x" delivery_format = "%h{X-Mine}" }'''
    daemon = Daemon(flow, sink_port=peer.port, text=text)
    id_ = daemon.connect().mail("to@away.test", body=f"X-Mine: kept\r\nX-Long: {'y' * 900}\r\n" + HELLO)[1].split()[-1]
    daemon.wait_lines("T", 1)
    wait_until(lambda: daemon.console("domain", "away.test")["queue"]["delayed"] == 1, "a delayed message")
    expect_equal(daemon.counter("scheduler.captures_cut"), 1, "cut")
    daemon.kill()
    daemon.start()
    answer[0] = True
    daemon.console("message", "retry", id_)
    expect_equal(wait_text(daemon, "x", 1), ["kept"], "the custom log")
    for e in (events(daemon, "reception", "main.json")[0], wait_events(daemon, "delivery", 1, "main.json")[0]):
        check(e, {"id": id_, "headers": {"x-mine": "kept"}, "context": {"x-long": "y" * 512}})
