"""What kind of failure each one was: the bounce log, for replies of next hops and for what comes back
as mail; complaints."""

import re
import subprocess

from flow import Daemon, expect, expect_equal, wait_until
from peer import Peer

HELLO = "Subject: hello\r\n\r\nhello\r\n"
FIELDS = ("time id batch connection type local domain from_local from_domain group binding stage class size ip "
          "text").split()


def unescape(field):
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r", "t": "\t"}.get(m[1], m[1]), field)


def rows(daemon, kind=None, file="bouncelog"):
    """Lines of a log as lists of fields, heartbeats left out."""
    path = daemon.log / file
    text = path.read_text(errors="replace") if path.exists() else ""
    lines = [[unescape(f) for f in re.split(r"(?<!\\)@", line)] for line in text.splitlines()]
    return [line for line in lines if line[4:] != ["M1"] and (kind is None or line[4] == kind)]


def bounces(daemon, kind=None):
    return [dict(zip(FIELDS, line)) for line in rows(daemon, kind)]


def wait_bounces(daemon, kind, count):
    wait_until(lambda: len(bounces(daemon, kind)) >= count, f"{count} lines of type {kind} in the bouncelog")
    return bounces(daemon, kind)


def stats(daemon):
    """Classes that were seen: {class: (in band, deferred, out of band)}."""
    found = {r["class"]: (r["in_band"], r["deferred"], r["out_of_band"]) for r in daemon.console("bounce_stats")}
    return {c: n for c, n in found.items() if any(n)}


# ---- in band ----


def test_classifies_what_next_hops_say(flow):
    said = {
        "gone": "550 5.1.1 no such user", "full": "552 5.2.2 mailbox is full", "listed": "550 5.7.1 see zen.spamhaus.org",
        "grey": "451 4.7.1 Greylisted, try again", "strange": "550 hm",
    }
    peer = Peer(flow, rcpt=lambda x: said[x.rcpt.split("@")[0]], offers=("PIPELINING",))
    daemon = Daemon(flow, text=f'gateway = "127.0.0.1:{peer.port}" retry_interval = "1h" generate_bounces = false')
    for name in said:
        daemon.connect().mail(f"{name}@away.test", body=HELLO)
    failed = {b["local"]: b for b in wait_bounces(daemon, "B", 4)}
    deferred = wait_bounces(daemon, "T", 1)
    expect_equal({n: b["class"] for n, b in failed.items()}, {"gone": "10", "full": "22", "listed": "50", "strange": "40"},
                 "classes")
    expect_equal([(b["local"], b["class"], b["text"]) for b in deferred], [("grey", "70", said["grey"])], "deferred")
    b = failed["gone"]
    expect_equal([b[f] for f in ("domain", "from_local", "from_domain", "group", "binding", "stage", "ip", "text")],
                 ["away.test", "from", "sender.test", "default", "default", "4", "127.0.0.1", said["gone"]], "fields")
    expect(int(b["size"]) > len(HELLO) and len(b["id"]) == 26, f"size and id: {b}")
    expect_equal({line[1] for line in daemon.lines("P")}, {b["id"] for b in failed.values()}, "ids of P lines")
    expect_equal(stats(daemon), {10: (1, 0, 0), 22: (1, 0, 0), 40: (1, 0, 0), 50: (1, 0, 0), 70: (0, 1, 0)},
                 "bounce_stats")


test_classifies_what_next_hops_say.short = True


def test_classifies_each_recipient_by_what_it_was_told(flow):
    said = {"a": "550 5.1.1 user unknown", "b": "552 5.2.2 over quota"}
    peer = Peer(flow, rcpt=lambda x: said.get(x.rcpt[0], True), dot="554 5.7.1 the message contains a virus")
    daemon = Daemon(flow, text=f'gateway = "127.0.0.1:{peer.port}" generate_bounces = false')
    daemon.connect().mail([f"{n}@away.test" for n in "abcd"], body=HELLO)
    found = {b["local"]: (b["class"], b["stage"]) for b in wait_bounces(daemon, "B", 4)}
    expect_equal(found, {"a": ("10", "4"), "b": ("22", "4"), "c": ("53", "9"), "d": ("53", "9")}, "classes and stages")


def test_classifies_its_own_troubles(flow):
    peer = Peer(flow)
    peer.close()
    daemon = Daemon(flow, text=f'gateway = "127.0.0.1:{peer.port}" generate_bounces = false\n'
                    'retry_interval = "100ms" host_failure_retry = "100ms" message_expiration = "700ms"')
    daemon.connect().mail("to@away.test", body=HELLO)
    failed = wait_bounces(daemon, "B", 1)
    expect_equal([(b["class"], b["text"][:9]) for b in failed], [("24", "554 5.4.7")], "expired")
    expect_equal({b["class"] for b in bounces(daemon, "T")}, {"24"}, "no connection")


def test_leaves_deferred_recipients_out_when_told_to(flow):
    peer = Peer(flow, rcpt=lambda x: "451 4.3.0 later" if x.rcpt.startswith("later") else "550 5.1.1 no")
    daemon = Daemon(flow, text=f'log {{ log_transient_failures = false heartbeat = "20ms" }}\n'
                    f'gateway = "127.0.0.1:{peer.port}" retry_interval = "1h" generate_bounces = false')
    daemon.connect().mail(["later@away.test", "now@away.test"], body=HELLO)
    daemon.wait_lines("T", 1)
    wait_bounces(daemon, "B", 1)
    expect_equal([b["local"] for b in bounces(daemon)], ["now"], "recipients in the bouncelog")
    expect_equal(stats(daemon), {10: (1, 0, 0), 70: (0, 1, 0)}, "deferred, counted all the same")
    wait_until(lambda: re.search(r"^\d+@@@@M1$", (daemon.log / "bouncelog").read_text(), re.M), "a heartbeat")


def test_goes_by_the_rules_that_it_was_given(flow):
    path = flow.path / "rules"
    path.write_text('class 7 = "Our Own"\n# none but this\n7 5xx zebra\n')
    peer = Peer(flow, rcpt=lambda x: "550 5.1.1 zebras only" if x.rcpt.startswith("z") else "550 5.1.1 no such user")
    daemon = Daemon(flow, text=f'gateway = "127.0.0.1:{peer.port}" generate_bounces = false\nbounce_rules = "{path}"')
    daemon.connect().mail(["z@away.test", "x@away.test"], body=HELLO)
    found = {b["local"]: b["class"] for b in wait_bounces(daemon, "B", 2)}
    expect_equal(found, {"z": "7", "x": "1"}, "classes")
    expect_equal([(r["class"], r["name"]) for r in daemon.console("bounce_stats") if r["in_band"]],
                 [(1, "Undetermined"), (7, "Our Own")], "names in bounce_stats")


def test_says_what_is_wrong_with_rules(flow):
    path = flow.path / "rules"
    path.write_text("10 5.1.1\n11 5xx no such class\n10 * (\n")
    daemon = Daemon(flow, text=f'bounce_rules = "{path}"', start=False)
    for option in ([], ["--check"]):
        done = subprocess.run([flow.program("flywheeld"), *option, "--config", daemon.config], capture_output=True,
                              text=True, timeout=60)
        expect_equal(done.returncode, 1, "exit status")
        places = re.findall(rf"^{re.escape(str(path))}:(\d+): ", done.stderr, re.M)
        expect_equal(places, ["2", "3"], f"lines with errors in {done.stderr}")
