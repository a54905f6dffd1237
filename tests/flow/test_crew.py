"""Schedulers by reload: they come and go, and get other cores and idle strategies, while mail flows."""

import base64
import itertools
import re
import resource
import threading
from pathlib import Path

from certificates import Certificates
from flow import Daemon, Sink, expect, expect_equal, wait_until
from test_extensions import USERS

SUMS = ("scheduler.received", "scheduler.delivered", "scheduler.inbound.connections", "scheduler.outbound.opened",
        "scheduler.tasks", "scheduler.group_cycles")


def set_agents(daemon, text):
    """The line of the schedulers in the configuration, and a reload."""
    lines = re.sub(r"(?m)^agent scheduler \{.*\}$", f"agent scheduler {{ {text} }}", daemon.config.read_text())
    daemon.config.write_text(lines)
    return daemon.console("config", "reload")


def thread(daemon, name):
    return next((row for row in daemon.console("threads")["threads"] if row["thread"] == name), None)


def schedulers(daemon):
    return len([row for row in daemon.console("threads")["agents"] if row["kind"] == "scheduler"])


def sums(daemon):
    counters = daemon.counters()
    return {name: counters.get(name, 0) for name in SUMS}


def test_schedulers_come_and_go_under_load(flow):
    sink = Sink(flow, "--record", flow.path / "record", "--ids")
    daemon = Daemon(flow, sink_port=sink.port, schedulers=1, extra_agents="agent log { coalesce = \"1ms\" }\n")
    # Until the changes are over, which the last part of the load waits for.
    load = flow.start("fwload", "--to", f"127.0.0.1:{daemon.port}", "--json", "--messages", 20000, "--domains", 50,
                      "--sessions", 20, "--per-connection", 50, "--size", "1k", "--retry", "--connect-retry", 60)
    before = sums(daemon)
    for count in (4, 2, 4, 1, 3, 2, 4, 2):
        answer = set_agents(daemon, f"count = {count}")
        expect_equal(answer.get("restart_only", []), [], f"what was not done ({answer})")
        now = sums(daemon)
        for name in SUMS:
            expect(now[name] >= before[name], f"{name} fell from {before[name]} to {now[name]} with {count} schedulers")
        before = now
    load.wait(300)
    expect_equal(load.returncode, 0, f"fwload: {flow.output(load)}")
    wait_until(lambda: sink.count_now("messages") >= 20000, "all mail to arrive", 120)
    daemon.wait_for_rest()
    expect_equal(sink.count_now("messages"), 20000, "messages")
    ids = (flow.path / "record").read_text().split()
    expect_equal(len(ids), len(set(ids)), "messages that came once")
    expect_equal(daemon.counter("scheduler.failed"), 0, "failed recipients")
    # What is alone is at its first home, on a scheduler that is there.
    homes = {daemon.console("domain", f"d{i}.example")["home"] for i in range(50)}
    expect_equal(homes, {"scheduler.0", "scheduler.1"}, "homes of the records")
    expect(daemon.counter("scheduler.outbound.moves") > 0, "records moved")
    expect(daemon.counter("scheduler.received") == 20000, "received")


def test_cores_and_idle_strategies_change(flow):
    daemon = Daemon(flow, schedulers=1)
    expect_equal(thread(daemon, "scheduler.0")["idle"], "park", "idle")
    set_agents(daemon, 'count = 2 cores = ( 0 -1 ) idle = "backoff"')
    expect_equal(thread(daemon, "scheduler.0")["idle"], "backoff", "idle of the one that was there")
    expect_equal(thread(daemon, "scheduler.1")["idle"], "backoff", "idle of the one that came")
    expect_equal((thread(daemon, "scheduler.0")["core"], thread(daemon, "scheduler.0")["pinned"]), (0, True), "core")
    expect_equal(thread(daemon, "scheduler.1")["core"], None, "not pinned")
    set_agents(daemon, 'count = 2 idle = "park"')
    expect_equal((thread(daemon, "scheduler.0")["core"], thread(daemon, "scheduler.0")["idle"]), (None, "park"), "unpinned")
    code, _ = daemon.connect().mail("somebody@here.test")
    expect_equal(code, 250, "mail is taken")


def deny_descriptors(daemon, spare):
    """From now on it may open `spare` more at a time. Returns the limits of before."""
    used = {int(fd.name) for fd in Path(f"/proc/{daemon.process.pid}/fd").iterdir()}
    free = itertools.islice((fd for fd in itertools.count() if fd not in used), spare)
    before = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (max(free) + 1, before[1]))
    return before


def test_what_could_not_be_made_is_tried_again(flow):
    daemon = Daemon(flow, schedulers=1)
    # One for the console, one for the files that are read and then for the first scheduler that comes.
    before = deny_descriptors(daemon, 2)
    answer = set_agents(daemon, "count = 3")
    expect("agents are not as the configuration says: Too many open files" in str(answer), f"answer: {answer}")
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, before)
    expect_equal(schedulers(daemon), 1, "schedulers when they could not be made")
    answer = set_agents(daemon, "count = 3")
    expect("agents are not" not in str(answer), f"answer: {answer}")
    expect_equal(schedulers(daemon), 3, "schedulers when they can")


def test_groups_without_agents_count_for_nothing(flow):
    groups = "".join(f"group g{i} {{ }}\n" for i in range(200))
    daemon = Daemon(flow, schedulers=1, text=groups)
    set_agents(daemon, "count = 2")
    expect_equal(thread(daemon, "scheduler.1")["idle"], "park", "idle of the one that came")
    # What is compared with names of threads must be whole.
    name = "g" * 64
    daemon.config.write_text(daemon.config.read_text() + f"\ngroup {name} {{ }}\nagent wheel {{ group = {name} }}\n")
    answer = daemon.console("config", "reload", fail=True)
    expect(f'group "{name}": expected a name of at most 63 bytes' in answer, f"answer: {answer}")


def test_schedulers_of_the_start_go_and_come(flow):
    sink = Sink(flow)
    daemon = Daemon(flow, sink_port=sink.port, schedulers=3)
    for count in (1, 3, 2):
        answer = set_agents(daemon, f"count = {count}")
        expect_equal(answer.get("restart_only", []), [], f"what was not done ({answer})")
        expect_equal(schedulers(daemon), count, "schedulers")
        client = daemon.connect()
        for i in range(10):
            code, _ = client.mail(f"somebody@d{i}.test")
            expect_equal(code, 250, "mail is taken")
    wait_until(lambda: sink.count_now("messages") >= 30, "all mail to arrive", 120)
    daemon.wait_for_rest()
    status, _ = daemon.terminate()
    expect_equal(status, 0, "status at the end")


def begin(client):
    client.say("MAIL FROM:<from@sender.test>", 250)
    client.say("RCPT TO:<to@a.test>", 250)
    client.say("DATA", 354)


def finish(client):
    client.send("Subject: hello\r\n\r\nhello\r\n")
    client.say(".", 250)


def test_sessions_outlive_their_scheduler(flow):
    """Nobody is told 421: who is between two messages goes on elsewhere, with TLS and as who he is; others then."""
    certificates = Certificates(flow)
    users = flow.path / "users"
    users.write_text(USERS)
    daemon = Daemon(flow, schedulers=1, text=f"""stop_timeout = "10m"
suspend_delivery = true
tls_certificate = "{certificates.make('flow.test')}"
tls_key = "{certificates.key}"
auth_file = "{users}"
""")
    set_agents(daemon, "count = 4")
    clients = [daemon.connect() for _ in range(12)]
    for client in clients:
        client.say("EHLO client.test", 250)
        client.say("STARTTLS", 220)
        client.socket = certificates.client().wrap_socket(client.socket, server_hostname="flow.test")
        client.file = client.socket.makefile("rb")
        client.say("EHLO client.test", 250)
        client.say("AUTH PLAIN " + base64.b64encode(b"\0sha\0open sesame").decode(), 235)
    for client in clients[:6]:
        begin(client)
    answers = []
    change = threading.Thread(target=lambda: answers.append(set_agents(daemon, "count = 1")))
    change.start()
    # Those in the middle keep their schedulers, and the change waits for them; the others are elsewhere.
    wait_until(lambda: daemon.counter("scheduler.smtp_handed_on") > 0, "sessions to be handed on")
    for client in clients[6:]:
        begin(client)
        finish(client)
    expect_equal(answers, [], "the change")
    for client in clients[:6]:
        finish(client)
    change.join()
    expect_equal(len(answers), 1, "the change")
    for client in clients:
        begin(client)
        finish(client)
        # He is known still: a second AUTH is out of order (RFC 4954 section 4).
        client.say("AUTH PLAIN " + base64.b64encode(b"\0sha\0open sesame").decode(), 503)
    expect_equal(daemon.counter("scheduler.smtp_refused_stopping"), 0, "sessions dismissed")
    expect_equal(daemon.counter("scheduler.smtp_handed_on"), 9, "sessions handed on")
    expect_equal(daemon.counter("scheduler.smtp_sessions"), 12, "sessions, each counted once")
    name = "scheduler.0.smtp_sessions_open"
    expect_equal(daemon.counters(name)[name], 12, "sessions of the one that is left")


def test_sessions_are_counted_where_they_are(flow):
    """By network: those of a scheduler that leaves go along, and those behind a proxy stay their clients'."""
    (flow.path / "policy.lua").write_text("local mod = {}\nfunction mod:init() end\nmsys.registerModule('policy', mod)\n")
    daemon = Daemon(flow, schedulers=1, listener='xclient_hosts = ( "127.0.0.0/8" )',
                    text='scriptlet "scriptlet" { script "policy" { source = "policy.lua" } }\n')
    set_agents(daemon, "count = 3")
    clients = [daemon.connect() for _ in range(6)]
    for client in clients[:4]:
        client.say("EHLO client.test", 250)
        client.say("XCLIENT ADDR=10.1.2.3", 220)

    def counted():
        return daemon.console("lua", "eval", "local count = msys.audit.inbound_session_count "
                              "print(count('127.0.0.1/32', 'SMTP'), count('10.1.2.3/32', 'SMTP'))")

    before = counted()
    expect("2\t4" in str(before).replace("\\t", "\t"), f"counted: {before}")
    set_agents(daemon, "count = 1")
    expect_equal(counted(), before, "sessions on the one that is left")
    expect_equal(daemon.counter("scheduler.smtp_handed_on"), 4, "sessions handed on")
    for client in clients:
        client.close()
    wait_until(lambda: "0\t0" in str(counted()).replace("\\t", "\t"), "none is left")
