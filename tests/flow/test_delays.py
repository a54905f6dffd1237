"""Senders are told of mail that waits (RFC 3461, NOTIFY=DELAY): whom, when, and once."""

import email
import email.utils
import time

from flow import Daemon, expect, expect_equal, wait_until
from peer import Peer
from test_bounces import fields

HELLO = "Subject: about the thing\r\n\r\nsecret text\r\n"


class Waiting:
    """Mail for far.test is put off, and is tried again and again; notices come to `home`."""

    def __init__(self, flow, text='delay_dsn_retry_interval = "100ms"', name=""):
        self.home = Peer(flow)
        self.far = Peer(flow, rcpt="451 4.2.1 come back later", offers=("PIPELINING", "DSN"))
        self.daemon = Daemon(flow, name=name, text=f'''{text}
retry_interval = "300ms" max_retry_interval = "300ms"
domain "sender.test" {{ gateway = "127.0.0.1:{self.home.port}" }}
gateway = "127.0.0.1:{self.far.port}"''')

    def send(self, *recipients, sender="from@sender.test"):
        """`recipients`: local part and parameters."""
        client = self.daemon.connect()
        client.say("EHLO client.test", 250)
        client.say(f"MAIL FROM:<{sender}> RET=FULL ENVID=QQ314159", 250)
        for local, parameters in recipients:
            client.say(f"RCPT TO:<{local}@far.test>{parameters}", 250)
        client.say("DATA", 354)
        client.send(HELLO)
        client.say(".", 250)

    def tries(self, count):
        """`count` more tries have failed, and what follows from them is done."""
        before = len(self.far.said("MAIL"))
        wait_until(lambda: len(self.far.said("MAIL")) > before + count, f"{count} tries")

    def told(self):
        """Recipients of each notice."""
        return [[group["Final-Recipient"].split()[1] for group in self.groups(mail)[1:]] for mail in self.home.mails]

    @staticmethod
    def groups(mail):
        return fields(email.message_from_bytes(mail.data).get_payload()[1])


def test_tells_of_delays_who_asked_for_it(flow):
    w = Waiting(flow)
    w.send(("asked", " NOTIFY=DELAY ORCPT=rfc822;old@far.test"), ("also", " NOTIFY=SUCCESS,FAILURE,DELAY"),
           ("failure", " NOTIFY=FAILURE"), ("never", " NOTIFY=NEVER"), ("nothing", ""))
    mail = w.home.wait(1)[0]
    expect_equal((mail.sender, mail.recipients), ("", ["from@sender.test"]), "envelope")
    parsed = mail.parse()
    expect_equal(parsed["Subject"], "Delayed mail: your message waits", "Subject")
    groups = w.groups(mail)
    expect_equal(groups[0]["Original-Envelope-Id"], "QQ314159", "Original-Envelope-Id")
    expect_equal([(g["Final-Recipient"], g["Action"], g["Status"]) for g in groups[1:]],
                 [("rfc822; asked@far.test", "delayed", "4.2.1"), ("rfc822; also@far.test", "delayed", "4.2.1")], "recipients")
    expect_equal(groups[1]["Original-Recipient"], "rfc822; old@far.test", "Original-Recipient")
    expect("451 4.2.1 come back later" in groups[1]["Diagnostic-Code"], f"Diagnostic-Code: {groups[1]}")
    until = email.utils.parsedate_to_datetime(groups[1]["Will-Retry-Until"]).timestamp()
    expect(abs(until - time.time() - 86400) < 600, f"Will-Retry-Until: {groups[1]['Will-Retry-Until']}")
    expect(b"secret text" not in mail.data, "the body came back, and nothing has failed")
    # Once, whatever happens to the program.
    for stop in (w.daemon.kill, w.daemon.terminate):
        w.tries(3)
        stop()
        w.daemon.start()
        w.tries(3)
    expect_equal(w.told(), [["asked@far.test", "also@far.test"]], "notices")
    expect_equal(w.daemon.counter("scheduler.bounces"), 0, "notices of the last life")


test_tells_of_delays_who_asked_for_it.short = True


def test_tells_of_delays_who_asked_for_nothing_if_told_to(flow):
    w = Waiting(flow, 'delay_dsn_retry_interval = "100ms" generate_delay_dsn = true')
    w.send(("nothing", ""), ("failure", " NOTIFY=FAILURE"))
    w.send(("null", " NOTIFY=DELAY"), sender="")
    w.home.wait(1)
    w.tries(6)
    expect_equal(w.told(), [["nothing@far.test"]], "notices")


def test_tells_of_delays_when_it_is_time(flow):
    """A young message's sender is not told, nor whose mail goes on its way."""
    w = Waiting(flow, 'domain "far.test" { delay_dsn_retry_interval = "2s" }')
    began = time.time()
    w.send(("asked", " NOTIFY=DELAY"))
    mail = w.home.wait(1)[0]
    date = email.utils.parsedate_to_datetime(mail.parse()["Date"]).timestamp()
    # Of whole seconds.
    expect(date - began > 1, f"told after {date - began} s")
    w = Waiting(flow, 'delay_dsn_retry_interval = "1h"', name="slow")
    w.send(("asked", " NOTIFY=DELAY"))
    w.tries(4)
    expect_equal(w.told(), [], "notices within the hour")
