"""Selectors: what is queued is found, held, released, failed, and sent elsewhere; in order, across restarts."""

import time

from flow import Daemon, expect, expect_equal, wait_until
from peer import Peer

BINDINGS = '''binding "a" { bind_address = "127.0.0.11" }
binding "b" { bind_address = "127.0.0.12" }
'''
# Mail for these waits in the active queue, or in the delayed one; that for others goes out.
WAITS = 'domain "active.test" { suspend_delivery = true }\n'


def refuse(session):
    """Whoever is at late.test is told to come back."""
    return "451 4.2.2 full" if session.rcpt.endswith("@late.test") else True


class Setup:
    """Three schedulers, a peer, and some mail that waits."""

    def __init__(self, flow, text="", rcpt=refuse, **options):
        self.peer = Peer(flow, rcpt=rcpt)
        self.daemon = Daemon(flow, sink_port=self.peer.port, schedulers=3, text=BINDINGS + WAITS + text, **options)

    def send(self, to, sender="from@sender.test", header="", binding=None, body="hello\r\n"):
        """The message's id."""
        field = f"X-Binding: {binding}\r\n" if binding else ""
        client = self.daemon.connect()
        code, text = client.mail(to, sender=sender, body=f"{field}{header}Subject: test\r\n\r\n{body}")
        client.close()
        expect_equal(code, 250, f"reply ({text})")
        return text.split()[-1]

    def find(self, *words):
        """Ids of what is found, in order."""
        return sorted(row["message"] for row in self.rows(*words))

    def rows(self, *words):
        found = self.daemon.console("find", *words)
        expect_equal(found["totals"]["shown"], len(found["deliveries"]), "rows said to be shown")
        expect_equal(found["totals"]["between_queues"], 0, "deliveries between queues")
        expect("trouble" not in found["totals"], f"trouble: {found['totals']}")
        return found["deliveries"]

    def order(self, *words, changed, unchanged=0):
        """An order that is carried out, tried dry before, which changes nothing."""
        dry = self.daemon.console(*words, "dry_run")
        done = self.daemon.console(*words)
        expect_equal((dry.pop("dry_run"), done.pop("dry_run")), (True, False), "dry runs")
        expect_equal(dry, done, f"what {words} would do, and what it did")
        expect_equal((done["matched"], done["changed"], done["unchanged"], done["busy"], done["after_attempt"]),
                     (changed + unchanged, changed, unchanged, 0, 0), f"counts of {words}")
        return done

    def delayed(self, count):
        wait_until(lambda: self.daemon.console("summary")["delayed_queue_size"] == count, f"{count} delayed deliveries")

    def held(self):
        return self.daemon.console("summary")["held_queue_size"]

    def restart(self):
        expect_equal(self.daemon.terminate()[0], 0, "exit status")
        self.daemon.start()


def test_finds_by_each_selector(flow):
    s = Setup(flow)
    one = s.send("bob@active.test", sender="news@a.example", header="X-Job: 17\r\n", binding="a")
    two = s.send(["carol@active.test", "dave@active.test"], sender="shop@b.example", header="X-Job: 18\r\n",
                 body="x" * 70 + "\r\n" + ("y" * 70 + "\r\n") * 100)
    three = s.send("bob@late.test", sender="news@b.example", header="x-job: a\r\n b\r\n")
    four = s.send("eve@held.test", sender="", binding="b") if s.daemon.console("suspend", "domain", "held.test") else ""
    s.order("hold", "id", four, changed=1)
    s.delayed(1)
    everything = sorted([one, two, three, four])
    for words, wanted in (
        (["all"], everything),
        (["id", two], [two]),
        (["domain", "active.test"], [one, two]),
        (["DOMAIN=*.Test"], everything),
        (["domain", "active.*", "binding", "a"], [one]),
        (["binding=default"], [two, three]),
        (["sender", "NEWS@a.example"], [one]),
        (["sender", "@b.example"], [two, three]),
        (["sender", "news@*"], [one, three]),
        (["sender", "<>"], [four]),
        (["recipient", "bob@late.test"], [three]),
        (["recipient", "bob@*"], [one, three]),
        (["recipient=@active.test"], [one, two]),
        (["recipient", "dave@active.test"], [two]),
        (["header", "X-Job", "17"], [one]),
        (["header", "x-job", "1*"], [one, two]),
        (["header", "X-Job", "a b"], [three]),
        (["header", "X-Job", "*"], [one, two, three]),
        (["older", "1h"], []),
        (["newer", "1h"], everything),
        (["larger", "4K"], [two]),
        (["larger", "1M"], []),
        (["attempts", "1"], [three]),
        (["attempts", "2"], []),
        (["state", "active"], [one, two]),
        (["state", "delayed"], [three]),
        (["state=held"], [four]),
        (["text", "*4.2.2 FULL*"], [three]),
        (["text", "4.2.2"], []),
        (["sender", "news@*", "recipient", "bob@*", "attempts", "1", "newer", "1d"], [three]),
        (["sender", "news@*", "header", "X-Job", "18"], []),
    ):
        expect_equal(s.find(*words), sorted(wanted), f"found by {' '.join(words)}")
    row = s.rows("id", two)[0]
    expect_equal((row["sender"], sorted(row["recipients"]), row["domain"], row["binding"], row["state"], row["attempts"]),
                 ("shop@b.example", ["carol@active.test", "dave@active.test"], "active.test", "default", "active", 0), "row")
    late = s.rows("id", three)[0]
    expect("4.2.2 full" in late["last_reply"] and late["due_at"] and late["body_bytes"] > 0, f"row {late}")
    found = s.daemon.console("find", "all", "limit", "2")
    expect_equal((len(found["deliveries"]), found["totals"]["deliveries"], found["totals"]["recipients"]), (2, 4, 5), "limited")
    s.restart()
    wait_until(lambda: s.find("all") == everything, "all mail to be found after a restart")
    expect_equal(s.find("sender", "news@*"), sorted([one, three]), "found by sender after the restart")
    expect_equal(s.find("header", "X-Job", "18"), [two], "found by header after the restart")
