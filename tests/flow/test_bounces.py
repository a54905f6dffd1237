"""What senders are told about mail that failed for good."""

import email
import email.policy
import email.utils

from flow import Daemon, Sink, expect, expect_equal, wait_until
from peer import Peer

HELLO = "Subject: about the thing\r\nX-Mine: yes\r\n\r\nsecret text\r\n"


class Setup:
    """Mail for bad.test meets a peer that is scripted to fail it; bounces go to one that keeps them."""

    def __init__(self, flow, text="", inner="", port=0, **replies):
        self.home = Peer(flow)
        self.bad = Peer(flow, **replies)
        self.daemon = Daemon(flow, text=f'''{text}
domain "sender.test" {{ gateway = "127.0.0.1:{port or self.home.port}" }}
domain "bad.test" {{ gateway = "127.0.0.1:{self.bad.port}" {inner} }}
domain "other.test" {{ gateway = "127.0.0.1:{self.bad.port}" }}
''')

    def send(self, recipients="to@bad.test", **options):
        code, text = self.daemon.connect().mail(recipients, body=HELLO, **options)
        expect_equal(code, 250, f"reply ({text})")
        return text.split()[-1]

    def no_bounce(self, failed=1):
        """All is over and nobody was told."""
        self.daemon.wait_lines("P", failed)
        self.daemon.wait_for_rest()
        expect_equal(len(self.home.mails), 0, "bounces")
        expect_equal(self.daemon.counter("scheduler.bounces"), 0, "bounces counted")


def fields(part):
    """The groups of a message/delivery-status part: the message's own, then one for each recipient."""
    return [dict(group.items()) for group in part.get_payload()]


def check_report(mail, recipients, status, diagnostic):
    """The whole notification is as RFC 3464 wants it; its delivery-status groups."""
    expect_equal((mail.sender, mail.recipients), ("", ["from@sender.test"]), "the bounce's envelope")
    raw = email.message_from_bytes(mail.data)
    report = mail.parse()
    expect_equal(raw.get_content_type(), "multipart/report", "type")
    expect_equal(raw.get_param("report-type"), "delivery-status", "report-type")
    expect_equal([d for p in raw.walk() for d in p.defects], [], "defects")
    types = [p.get_content_type() for p in raw.get_payload()]
    expect_equal(types, ["text/plain", "message/delivery-status", "text/rfc822-headers"], "parts")
    expect_equal(email.utils.parseaddr(report["To"])[1], "from@sender.test", "To:")
    expect(report["Auto-Submitted"] and report["Message-ID"] and report["Subject"], "fields are missing")
    expect(email.utils.parsedate_to_datetime(report["Date"]) is not None, "no Date:")
    for line in mail.data.split(b"\r\n"):
        expect(len(line) <= 998 and b"\n" not in line and b"\r" not in line, f"a line that is none: {line!r}")
    groups = fields(raw.get_payload()[1])
    expect_equal(groups[0]["Reporting-MTA"], "dns; flow.test", "Reporting-MTA")
    expect_equal(sorted(g["Final-Recipient"] for g in groups[1:]), sorted(f"rfc822; {r}" for r in recipients),
                 "Final-Recipient")
    for group in groups[1:]:
        expect_equal((group["Action"], group["Status"]), ("failed", status), "Action and Status")
        expect(diagnostic in group["Diagnostic-Code"], f"Diagnostic-Code: {group['Diagnostic-Code']}")
        expect(group["Final-Recipient"].split()[1] in raw.get_payload()[0].get_payload(), "not in the text")
    original = raw.get_payload()[2].get_payload()
    expect("Subject: about the thing" in original and "X-Mine: yes" in original, f"the header is {original}")
    expect(b"secret text" not in mail.data, "the body of the message went out with the bounce")
    return groups


def test_tells_the_sender_what_failed_at_each_stage(flow):
    for name, replies, status, text in (
            ("rcpt", {"rcpt": "550 5.1.1 no such user"}, "5.1.1", "smtp; 550 5.1.1 no such user"),
            ("mail", {"mail": "553 5.7.1 go away"}, "5.7.1", "smtp; 553 5.7.1 go away"),
            ("data", {"data": "554 5.6.0 not that"}, "5.6.0", "smtp; 554 5.6.0 not that"),
            ("dot", {"dot": "552 5.2.2 full"}, "5.2.2", "smtp; 552 5.2.2 full"),
            ("plain", {"dot": "550 without enhanced code"}, "5.0.0", "smtp; 550 without enhanced code")):
        home, bad = Peer(flow), Peer(flow, **replies)
        daemon = Daemon(flow, name=name, text=f'domain "sender.test" {{ gateway = "127.0.0.1:{home.port}" }}\n'
                        f'gateway = "127.0.0.1:{bad.port}"')
        daemon.connect().mail("to@bad.test", body=HELLO)
        check_report(home.wait(1)[0], ["to@bad.test"], status, text)
        daemon.wait_for_rest()
        internal = [line for line in daemon.wait_lines("R", 2) if line[11] == "internal"]
        expect_equal([(line[5], line[6], line[7]) for line in internal], [("from", "sender.test", "")], "R line")
        expect_equal(len(daemon.wait_lines("P", 1)), 1, "P lines")


test_tells_the_sender_what_failed_at_each_stage.short = True


def test_tells_about_several_recipients_at_once(flow):
    s = Setup(flow, rcpt=lambda x: True if x.rcpt.startswith("good") else f"550 5.1.1 no {x.rcpt}")
    s.send(["good@bad.test", "one@bad.test", "two@bad.test"])
    groups = check_report(s.home.wait(1)[0], ["one@bad.test", "two@bad.test"], "5.1.1", "550 5.1.1 no ")
    for group in groups[1:]:
        expect(group["Final-Recipient"].split()[1] in group["Diagnostic-Code"], f"another's reply: {group}")
    s.daemon.wait_for_rest()
    expect_equal(len(s.home.mails), 1, "bounces")
    # Two domains fail on their own, so there is one for each.
    s.send(["one@bad.test", "two@other.test"])
    s.home.wait(3)
    s.daemon.wait_for_rest()
    expect_equal(len(s.home.mails), 3, "bounces")


def test_tells_of_mail_that_expired(flow):
    s = Setup(flow, text='retry_interval = "100ms" max_retry_interval = "200ms"',
              inner='message_expiration = "700ms"', mail="451 4.3.0 not now")
    s.send()
    check_report(s.home.wait(1)[0], ["to@bad.test"], "5.4.7", "exceeded max time")


def test_names_who_writes_as_configured(flow):
    s = Setup(flow, inner='mailerdaemon = "robot@reports.test"', rcpt="550 5.1.1 no")
    s.send()
    expect_equal(email.utils.parseaddr(s.home.wait(1)[0].parse()["From"])[1], "robot@reports.test", "From:")
    s.send("to@other.test")
    expect_equal(email.utils.parseaddr(s.home.wait(2)[1].parse()["From"])[1], "mailer-daemon@flow.test", "From:")


def test_tells_in_plain_words_whatever_the_peer_says(flow):
    long = "550-5.1.1 " + "word " * 60 + "\r\n" + "550-5.1.1 " + "x" * 400 + "\r\n550 5.1.1 caf\u00e9 <>&\\ end"
    s = Setup(flow, rcpt=long)
    s.send()
    check_report(s.home.wait(1)[0], ["to@bad.test"], "5.1.1", "550")
    expect(s.home.mails[0].data.isascii(), "octets above 127")


def test_tells_no_one_about_mail_without_a_sender(flow):
    s = Setup(flow, rcpt="550 5.1.1 no")
    s.send(sender="")
    s.no_bounce()


def test_tells_no_one_when_told_not_to(flow):
    s = Setup(flow, inner="generate_bounces = false", rcpt="550 5.1.1 no")
    s.send()
    s.no_bounce()
    s.send("to@other.test")
    s.home.wait(1)


def test_tells_no_one_about_a_bounce_that_failed(flow):
    home = Peer(flow, rcpt="550 5.1.1 you too")
    s = Setup(flow, port=home.port, rcpt="550 5.1.1 no")
    s.send()
    s.daemon.wait_lines("P", 2)
    s.daemon.wait_for_rest()
    expect_equal(s.daemon.counter("scheduler.bounces"), 1, "bounces")


def test_an_operator_fails_mail_with_and_without_a_bounce(flow):
    s = Setup(flow, text='retry_interval = "1h"', mail="451 4.3.0 not now")
    daemon = s.daemon
    for quiet in (True, False):
        ids = [s.send() for _ in range(3)]
        wait_until(lambda: daemon.console("domain", "bad.test")["queue"]["delayed"] == 3, "three in the queue")
        words = ["quiet"] if quiet else []
        daemon.console("message", "fail", ids[0], *words)
        expect_equal(daemon.console("fail", "domain", "bad.test", *words)["messages_failed"], 2, "failed")
        daemon.wait_lines("P", 3 if quiet else 6)
        daemon.wait_for_rest()
        expect_equal(len(s.home.mails), 0 if quiet else 3, "bounces")
    texts = sorted(line[13] for line in daemon.lines("P"))
    expect(texts[0].startswith("554 Message manually purged") and "manually failed" in texts[-1], f"P: {texts}")
    for mail in s.home.mails:
        check_report(mail, ["to@bad.test"], "5.7.0", "manually")


test_an_operator_fails_mail_with_and_without_a_bounce.short = True


def test_bounces_survive_a_kill(flow):
    s = Setup(flow, text='retry_interval = "200ms" host_failure_retry = "200ms"', rcpt="550 5.1.1 no")
    port = s.home.port
    s.home.close()
    for _ in range(20):
        s.send()
    s.daemon.wait_lines("P", 20)
    wait_until(lambda: s.daemon.counter("scheduler.bounces") == 20, "all bounces")
    s.daemon.kill()
    s.home = Peer(flow, port=port)
    s.daemon.start()
    s.home.wait(20)
    s.daemon.wait_for_rest()
    expect_equal(len(s.home.mails), 20, "bounces after the kill")
    expect_equal(len(s.bad.mails), 0, "messages at the peer that refuses them")
    check_report(s.home.mails[0], ["to@bad.test"], "5.1.1", "550")


test_bounces_survive_a_kill.short = True


def test_a_failure_before_a_kill_is_not_forgotten(flow):
    """Killed at any moment while mail fails: every sender hears of it, at least once."""
    s = Setup(flow, text='retry_interval = "200ms" host_failure_retry = "200ms"', rcpt="550 5.1.1 no")
    for round_ in range(4):
        for _ in range(25):
            s.send()
        s.daemon.kill()
        s.daemon.start()
    wait_until(lambda: len(s.home.mails) >= 100, "a bounce for each message")
    s.daemon.wait_for_rest()


def test_bounces_go_through_the_load_tools(flow):
    """Many at once: 300 messages, 300 bounces, saved by the sink and all well-formed."""
    saved = flow.path / "saved"
    saved.mkdir()
    home, bad = Sink(flow, "--save", saved), Sink(flow, "--reject-rcpt", "*")
    daemon = Daemon(flow, text=f'gateway = "127.0.0.1:{bad.port}"\n'
                    f'domain "load.example" {{ gateway = "127.0.0.1:{home.port}" }}')
    flow.load(daemon, "--messages", 300, "--domains", 5)
    wait_until(lambda: home.count("foreign") >= 300, "all bounces")
    daemon.wait_for_rest()
    files = sorted(saved.glob("*.eml"))
    expect_equal(len(files), 300, "saved files")
    for file in files:
        report = email.message_from_bytes(file.read_bytes())
        expect_equal(report.get_content_type(), "multipart/report", "type")
        expect_equal([d for p in report.walk() for d in p.defects], [], "defects")
