"""Selectors: what is queued is found, held, released, failed, and sent elsewhere; exactly, and across restarts."""

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

    def at_rest(self, count):
        """So many deliveries are queued, and nothing is under way."""
        def resting():
            v = self.daemon.console("summary")
            return (v["total_queue_size"], v["in_delivery"], v["waiting_for_spool"]) == (count, 0, 0)
        wait_until(resting, f"{count} deliveries at rest")

    def held(self):
        return self.daemon.console("summary")["held_queue_size"]

    def restart(self):
        expect_equal(self.daemon.terminate()[0], 0, "exit status")
        self.daemon.start()
        wait_until(lambda: self.daemon.console("find", "all")["totals"]["not_recovered"] == 0, "the end of recovery")


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
    s.at_rest(4)
    expect_equal(s.find("all"), everything, "found after a restart")
    expect_equal(s.find("sender", "news@*"), sorted([one, three]), "found by sender after the restart")
    expect_equal(s.find("header", "X-Job", "18"), [two], "found by header after the restart")


test_finds_by_each_selector.short = True


def test_answers_wrong_words_by_name(flow):
    s = Setup(flow)
    for words, wanted in (
        (["find", "colour", "red"], '"colour" is no selector'),
        (["find", "domain"], '"domain" needs a value'),
        (["find", "domain", "a.test", "domain", "b.test"], '"domain" is said twice'),
        (["find", "older", "soon"], 'older: "soon"'),
        (["find", "larger", "big"], 'larger: "big"'),
        (["find", "attempts", "none"], 'attempts: "none"'),
        (["find", "state", "sleeping"], 'state: "sleeping" is no state'),
        (["find", "header", "X-Job"], "header X-Job: which value"),
        (["find", "header", "X Job", "1"], 'header: "X Job"'),
        (["find", "id", "17"], 'id: "17" is not a message id'),
        (["find", "all", "domain", "a.test"], '"all" and other selectors'),
        (["find", "all", "limit", "0"], 'limit: "0"'),
        (["find", "limit", "5"], "which mail"),
        (["find", "all", "dry_run"], '"dry_run" is no selector'),
        (["hold", "dry_run"], "which mail"),
        (["release", "quiet"], '"quiet" is no selector'),
        (["fail", "quiet"], "which mail"),
        (["fail"], "usage: fail"),
        (["reroute", "domain", "a.test", "quiet"], '"quiet" is no selector'),
        (["reroute", "domain", "a.test", "dry_run"], "to where"),
        (["reroute", "all", "to", "no name"], '"no name"'),
        (["rebind", "all", "to", "nobody"], 'there is no binding "nobody"'),
        (["rebind", "to", "a", "dry_run"], "which mail"),
        (["mailq", "5", "domain", "a.test", "sleeping"], '"sleeping" is no selector'),
        (["fail", "domain", "a.test", "b", "loudly"], "usage: fail domain"),
        (["fail", "binding", "a", "loudly"], "usage: fail binding"),
    ):
        answer = s.daemon.console(*words, fail=True)
        expect(wanted in answer, f"{words} was answered {answer}")


def test_no_kill_undoes_an_order_that_was_answered(flow):
    """Killed as soon as the answer is there: what failed stays failed, what was held, sent on or bound
    anew is where it was put."""
    s = Setup(flow)
    for round_ in range(3):
        for number in range(30):
            s.send([f"{name}{number}@active.test" for name in ("gone", "stays")])
        orders = (("fail", "recipient", "gone*", "quiet"), ("fail", "domain", "active.test", "quiet"),
                  ("fail", "binding", "default", "quiet"))
        answer = s.daemon.console(*orders[round_])
        s.daemon.kill()
        expect("trouble" not in answer, f"trouble: {answer}")
        s.daemon.start()
        if round_ == 0:
            expect_equal(answer["changed"], 30, "failed")
            s.at_rest(30)
            expect_equal(s.daemon.console("find", "recipient", "gone*")["totals"]["recipients"], 0, "that came back")
            s.daemon.console("suspend", "domain", "other.active.test")
            s.order("reroute", "domain", "active.test", "to", "other.active.test", changed=30)
            s.at_rest(30)
            s.order("hold", "all", changed=30)
            s.at_rest(30)
            s.order("rebind", "all", "to", "a", changed=30)
            s.daemon.kill()
            s.daemon.start()
            s.at_rest(30)
            rows = s.rows("all", "limit", "100")
            expect_equal({(r["domain"], r["binding"], r["state"]) for r in rows}, {("other.active.test", "a", "held")},
                         "where it is")
            s.order("fail", "all", "quiet", changed=30)
        else:
            expect_equal(answer["messages_failed"], 30, "failed")
        s.at_rest(0)


def test_holds_mail_across_restarts_until_it_is_released(flow):
    s = Setup(flow)
    s.daemon.console("suspend", "domain", "go.test")
    kept = [s.send(f"r{i}@go.test", sender="keep@a.example") for i in range(5)]
    late = s.send("r@late.test", sender="keep@a.example")
    gone = [s.send(f"s{i}@go.test") for i in range(3)]
    s.delayed(1)
    done = s.order("hold", "sender", "keep@a.example", changed=6)
    expect_equal(sorted(done["first_messages"]), sorted([*kept, late]), "messages that are named")
    s.order("hold", "sender", "keep@a.example", changed=0, unchanged=6)
    expect_equal(s.find("state", "held"), sorted([*kept, late]), "held mail")
    s.daemon.console("resume", "domain", "go.test")
    expect_equal(sorted(m.recipients[0] for m in s.peer.wait(3)), [f"s{i}@go.test" for i in range(3)], "what goes on")
    s.daemon.console("flush", "domain", "all")
    s.restart()
    wait_until(lambda: s.held() == 6, "held mail after the restart")
    expect_equal(s.find("state", "held"), sorted([*kept, late]), "held mail after the restart")
    queue = {row["domain"]: row for row in s.daemon.console("mailq")["queues"]}
    expect_equal((queue["go.test"]["held"], queue["late.test"]["held"]), (5, 1), "held mail in mailq")
    expect_equal(s.daemon.console("domain", "go.test")["queue"]["held"], 5, "held mail of the domain")
    expect_equal(s.daemon.console("message", late)["deliveries"][0]["place"], "held", "place of a message")
    expect_equal(s.rows("id", late)[0]["attempts"], 1, "attempts, kept")
    s.daemon.kill()
    s.daemon.start()
    wait_until(lambda: s.held() == 6, "held mail after a kill")
    expect_equal(len(s.peer.mails), 3, "messages at the peer while it is held")
    s.order("release", "state", "held", "domain", "go.test", changed=5)
    expect_equal(sorted(m.recipients[0] for m in s.peer.wait(8)[3:]), [f"r{i}@go.test" for i in range(5)], "released mail")
    s.order("release", "id", late, changed=1)
    s.delayed(1)
    expect_equal(s.find("state", "delayed"), [late], "what waited before it was held waits on")
    expect_equal(len(set(gone) & set(s.find("all"))), 0, "found after it was delivered")


def test_held_mail_expires(flow):
    s = Setup(flow, text='message_expiration = "3s"\ndomain "long.test" { message_expiration = "1h" }\n')
    s.daemon.console("suspend", "domain", "soon.test")
    s.daemon.console("suspend", "domain", "long.test")
    soon = s.send("to@soon.test", sender="")
    long = s.send("to@long.test", sender="")
    s.order("hold", "all", changed=2)
    failed = s.daemon.wait_lines("P", 1)
    expect_equal(failed[0][1], soon, "message that failed")
    expect("exceeded max time" in "@".join(failed[0]), f"its line is {failed[0]}")
    expect_equal(s.find("all"), [long], "what is held on")


def test_fails_what_is_meant_and_nobody_else(flow):
    s = Setup(flow)
    pair = s.send(["bob@active.test", "carol@active.test"], sender="one@sender.test")
    quiet = s.send("bob@active.test", sender="two@sender.test", header="X-Job: 9\r\n")
    held = s.send("dave@active.test", sender="")
    s.order("hold", "id", held, changed=1)
    done = s.order("fail", "recipient", "bob@active.test", "header", "Subject", "test", "id", pair, changed=1)
    expect_equal((done["recipients"], done["first_messages"]), (1, [pair]), "what failed")
    line = s.daemon.wait_lines("P", 1)[0]
    expect("554 manually failed" in "@".join(line), f"the line is {line}")
    bounce = s.peer.wait(1)[0]
    expect_equal((bounce.sender, bounce.recipients), ("", ["one@sender.test"]), "bounce")
    expect(b"bob@active.test" in bounce.data and b"carol@active.test" not in bounce.data, "whom the bounce names")
    s.at_rest(3)
    expect_equal(s.find("all"), sorted([pair, quiet, held]), "what is left")
    expect_equal(s.rows("id", pair)[0]["recipients"], ["carol@active.test"], "who is left")
    s.restart()
    s.at_rest(3)
    expect_equal(s.find("all"), sorted([pair, quiet, held]), "what is left after a restart")
    expect_equal(s.rows("id", pair)[0]["recipients"], ["carol@active.test"], "who is left after a restart")
    # The old form goes on with selectors.
    answer = s.daemon.console("fail", "domain", "active.test", "header", "X-Job", "9", "quiet")
    expect_equal((answer["matched"], answer["changed"]), (1, 1), "failed by domain and header")
    s.daemon.wait_lines("P", 2)
    s.order("fail", "state", "held", changed=1)
    s.daemon.wait_lines("P", 3)
    s.at_rest(1)
    expect_equal(s.find("all"), [pair], "what is left in the end")
    expect_equal(len(s.peer.mails), 1, "bounces")


def test_reroutes_to_the_queue_of_another_domain(flow):
    s = Setup(flow)
    other = Peer(flow)
    extra = f'domain "relay.test" {{ gateway = "127.0.0.1:{other.port}" }}\n'
    s.daemon.terminate()
    s.daemon.config.write_text(s.daemon.config.read_text() + extra)
    s.daemon.start()
    s.daemon.console("suspend", "domain", "relay.test")
    moved = [s.send(f"r{i}@active.test", binding="a" if i % 2 else None) for i in range(6)]
    late = s.send("r@late.test")
    stays = s.send("stays@active.test")
    s.delayed(1)
    s.order("reroute", "recipient", "r*", "to", "Relay.test", changed=7)
    s.at_rest(8)
    expect_equal(s.find("domain", "relay.test"), sorted([*moved, late]), "what was moved")
    expect_equal(s.find("domain", "active.test"), [stays], "what stays")
    s.order("reroute", "recipient", "r*", "to", "relay.test", changed=0, unchanged=7)
    expect_equal(s.rows("id", late)[0]["attempts"], 1, "attempts")
    s.order("hold", "recipient", "r0@active.test", changed=1)
    s.daemon.kill()
    s.daemon.start()
    s.daemon.console("suspend", "domain", "relay.test")
    expect_equal(s.daemon.console("resume", "domain", "active.test")["domain"], "active.test", "answer")
    wait_until(lambda: s.held() == 1, "held mail in the other queue")
    expect_equal(s.find("domain", "relay.test", "state", "held"), [moved[0]], "held mail in the other queue")
    s.daemon.console("resume", "domain", "relay.test")
    s.daemon.console("flush", "domain", "all")
    expect_equal(sorted(m.recipients[0] for m in other.wait(6)),
                 sorted([f"r{i}@active.test" for i in range(1, 6)] + ["r@late.test"]), "mail at the other peer")
    expect_equal(sorted({m.recipients[0] for m in s.peer.wait(1)}), ["stays@active.test"], "mail at the first peer")
    s.order("release", "state", "held", changed=1)
    expect_equal([m.recipients[0] for m in other.wait(7)[6:]], ["r0@active.test"], "released mail")
    s.daemon.wait_for_rest()
    expect_equal({line[5] for line in s.daemon.wait_lines("D", 8)}, {"relay.test", "active.test"}, "domains in the log")


def test_rebinds_to_another_binding(flow):
    sources = {}

    def greet(session):
        sources[session.number] = session.socket.getpeername()[0]
        return True

    s = Setup(flow)
    s.peer.replies["banner"] = greet
    s.daemon.console("suspend", "binding", "a")
    moved = [s.send(f"r{i}@go{i % 3}.test", binding="a", header=f"X-Job: {i}\r\n") for i in range(6)]
    stays = s.send("stays@go.test", binding="a", header="X-Job: 7\r\n")
    s.order("rebind", "header", "X-Job", "0", "to", "b", changed=1)
    expect_equal([m.recipients[0] for m in s.peer.wait(1)], ["r0@go0.test"], "what goes at once")
    # A kill takes the log's last lines with it.
    s.daemon.wait_lines("D", 1)
    s.daemon.console("suspend", "binding", "b")
    s.order("rebind", "recipient", "r*", "to", "b", changed=5)
    s.at_rest(6)
    expect_equal(s.find("binding", "b"), sorted(moved[1:]), "what was moved")
    s.daemon.kill()
    s.daemon.start()
    mails = s.peer.wait(7)
    s.daemon.wait_for_rest()
    expect_equal({sources[m.connection] for m in mails if m.recipients != ["stays@go.test"]}, {"127.0.0.12"},
                 "addresses that mail came from")
    found = {line[1]: line[8] for line in s.daemon.wait_lines("D", 7)}
    expect_equal(found, {**{m: "b" for m in moved}, stays: "a"}, "bindings in the log")


def test_orders_wait_for_attempts_or_count_them(flow):
    release = []

    def slow(session):
        wait_until(lambda: release, "leave to answer")
        return "451 4.2.2 full"

    s = Setup(flow, rcpt=slow)
    mail = s.send(["bob@go.test", "carol@go.test"], sender="")
    wait_until(lambda: s.peer.said("RCPT"), "the attempt")
    for words in (["reroute", "all", "to", "late.test"], ["rebind", "all", "to", "a"], ["fail", "recipient", "bob@go.test"]):
        done = s.daemon.console(*words)
        expect_equal((done["matched"], done["busy"], done["changed"]), (1, 1, 0), f"counts of {words}")
    done = s.daemon.console("hold", "all")
    expect_equal((done["matched"], done["after_attempt"], done["changed"]), (1, 1, 0), "counts of hold")
    expect_equal(s.rows("all")[0]["state"], "on a connection, then held", "state")
    release.append(True)
    wait_until(lambda: s.held() == 1, "the message to be held")
    expect_equal(s.find("state", "held"), [mail], "held mail")
    expect_equal(s.rows("all")[0]["attempts"], 1, "attempts")
    release.clear()
    s.order("release", "all", changed=1)
    s.daemon.console("flush", "domain", "go.test")
    wait_until(lambda: s.daemon.console("summary")["in_delivery"] == 1, "the second attempt")
    expect_equal(s.rows("all")[0]["state"], "on a connection", "state")
    done = s.daemon.console("fail", "all")
    expect_equal((done["matched"], done["after_attempt"]), (1, 1), "counts of fail")
    release.append(True)
    s.daemon.wait_lines("P", 2)
    s.daemon.wait_for_rest()


def test_keeps_held_mail_that_was_only_in_memory(flow):
    s = Setup(flow, text='spool { durability = "memory" }\n')
    s.daemon.console("suspend", "domain", "go.test")
    found = s.send("bob@go.test", header="X-Job: 1\r\n")
    other = s.send("carol@go.test", header="X-Job: 2\r\n")
    expect_equal(s.find("header", "X-Job", "1"), [found], "found by header in memory")
    expect_equal(s.find("recipient", "carol@*"), [other], "found by recipient in memory")
    s.order("hold", "recipient", "bob@*", changed=1)
    wait_until(lambda: s.held() == 1, "the message to be held")
    expect_equal(s.find("state", "held"), [found], "held mail")
    s.daemon.kill()
    s.daemon.start()
    wait_until(lambda: s.held() == 1, "held mail after a kill")
    expect_equal(s.find("all"), [found], "what was held, after a kill")


def test_mailq_takes_selectors(flow):
    s = Setup(flow)
    for name in ("one", "two"):
        s.daemon.console("suspend", "domain", f"{name}.test")
    for i in range(3):
        s.send(f"r{i}@one.test", binding="a")
    s.send("r@two.test")
    s.send("r@late.test")
    s.delayed(1)
    s.order("hold", "recipient", "r0@one.test", changed=1)

    def queues(*words):
        return [(row["domain"], row.get("matching")) for row in s.daemon.console("mailq", *words)["queues"]]

    expect_equal(queues("1"), [("one.test", None)], "the longest queue")
    expect_equal(queues("a"), [("one.test", None)], "queues of a binding")
    expect_equal(queues("binding", "a"), [("one.test", 3)], "queues of a binding, selected")
    expect_equal(queues("domain", "t*.test"), [("two.test", 1)], "queues by name")
    expect_equal(queues("state=held"), [("one.test", 1)], "queues with held mail")
    expect_equal(queues("state", "delayed"), [("late.test", 1)], "queues with delayed mail")
    expect_equal(queues("5", "state", "active", "domain", "*"), [("one.test", 2), ("two.test", 1)], "active queues")
    expect_equal(queues("1", "newer", "1h"), [("one.test", 3)], "young mail, one row")
    expect_equal(queues("older", "1h"), [], "old mail")


def test_finds_all_of_a_long_queue(flow):
    """It takes a scheduler several steps, with rests between them, to look at so many."""
    s = Setup(flow)
    flow.load(s.daemon, "--messages", "4000", "--sessions", "4", "--size", "600", "--domain-format", "active.test")
    s.at_rest(4000)
    for words in (["all"], ["state", "active"], ["recipient", "@active.test"], ["header", "Message-ID", "*"]):
        found = s.daemon.console("find", *words, "limit", "5")
        expect_equal((found["totals"]["deliveries"], len(found["deliveries"])), (4000, 5), f"found by {words}")
    expect_equal(s.daemon.console("hold", "all", "dry_run")["changed"], 4000, "what would be held")
    expect_equal(s.daemon.console("mailq", "state", "active")["deliveries_matching"], 4000, "what mailq counts")


def test_finds_many_while_mail_flows(flow):
    """Nothing that stays is missed, nothing is found twice, whatever comes and goes beside it."""
    s = Setup(flow)
    stays = sorted(s.send(f"r{i}@active.test", sender="stays@a.example") for i in range(20))
    s.daemon.console("suspend", "domain", "many.test")
    flow.load(s.daemon, "--messages", "3000", "--sessions", "4", "--size", "600", "--domain-format", "many.test")
    s.daemon.console("resume", "domain", "many.test")
    rounds = 0
    while len(s.peer.mails) < 3000:
        for words in (["sender", "stays@a.example"], ["domain", "active.test"], ["header", "Subject", "test"]):
            found = s.daemon.console("find", *words)
            ids = [row["message"] for row in found["deliveries"]]
            expect_equal(sorted(ids), stays, f"found by {words}")
        rounds += 1
    expect(rounds > 0, "no search while mail was under way")
