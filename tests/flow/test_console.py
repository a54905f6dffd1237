"""The console: every command, for people and for scripts."""

import json
import os
import socket
import stat
import subprocess

from flow import Daemon, Failure, expect, expect_equal, wait_until
from peer import Peer

HELLO = "Subject: hello\r\n\r\nhello\r\n"
IDLE = ("busy-spin", "yield", "backoff", "sleep", "noop", "park")


class Setup:
    """Mail that waits: the peer defers everything for later.test and takes the rest."""

    def __init__(self, flow, **options):
        self.deferring = True
        self.peer = Peer(flow, rcpt=self.rcpt)
        self.script = flow.path / "policy.lua"
        self.script.write_text("answer = 42")
        self.daemon = Daemon(flow, sink_port=self.peer.port, text='retry_interval = "1h"\n'
                             f'scriptlet "scriptlet" {{ script "s" {{ source = "{self.script.name}" }} }}', **options)

    def rcpt(self, session):
        return "450 4.2.1 later" if self.deferring and session.rcpt.endswith("later.test") else True

    def send(self, recipients="to@later.test"):
        code, text = self.daemon.connect().mail(recipients, body=HELLO)
        expect_equal(code, 250, f"reply ({text})")
        return text.split()[-1]

    def wait_delayed(self, count, domain="later.test"):
        def delayed():
            return self.daemon.console("domain", domain)["queue"]["delayed"] == count
        wait_until(delayed, f"{count} delayed messages of {domain}")


def run(daemon, *words, stdin=None, socket_path=None):
    """The console as a user starts it: (exit status, output, errors)."""
    done = subprocess.run([daemon.flow.program("flywheel"), "-s", socket_path or daemon.control, *words],
                          capture_output=True, text=True, timeout=60, input=stdin)
    return done.returncode, done.stdout, done.stderr


def test_every_command_answers_people_and_scripts(flow):
    s = Setup(flow)
    message = s.send()
    s.wait_delayed(1)
    commands = [c["command"] for c in s.daemon.console("help")]
    arguments = {
        "why domain": ["later.test"], "why message": [message], "domain": ["later.test"], "site": ["later.test"], "active": ["0"], "delayed": ["0"], "message": [message], "message retry": [message],
        "dig": ["localhost", "A"], "dns_cache lookup": ["localhost", "A"],
        "lua eval": ["return answer"], "lua check": [str(s.script)],
        "binding": ["default"], "flush binding": ["default"], "suspend binding": ["default"],
        "resume binding": ["default"], "fail binding": ["default", "quiet"],
        "flush domain": ["later.test"], "suspend domain": ["later.test"], "resume domain": ["later.test"],
        "find": ["all"], "hold": ["all", "dry_run"], "release": ["all", "dry_run"], "fail": ["all", "dry_run"],
        "reroute": ["all", "to", "other.test", "dry_run"], "rebind": ["all", "to", "default", "dry_run"],
        "config get": ["retry_interval"], "config eval": ["domain", "later.test", "retry_interval"],
        "config locate": ["retry_interval"], "config set": ["max_outbound_connections", "7"],
        "complete": ["domain", "lat"], "counters": ["scheduler.*"], "message fail": [message, "quiet"], "fail domain": ["later.test", "quiet"],
    }
    # Not possible twice, or on a connection of their own: test_config.py has them.
    alone = ["config commit", "config rollback", "config writeback", "config unset"]
    last = ["message fail", "fail domain", "fail binding", "trace smtp remove", "shutdown"]
    for command in [c for c in commands if c not in last + alone]:
        words = [*command.split(), *arguments.get(command, [])]
        status, out, errors = run(s.daemon, *words)
        expect_equal((status, errors), (0, ""), f"status and errors of {words}")
        expect(out.strip() and "{" not in out.split("\n")[0], f"{words} says {out!r}")
        status, out, errors = run(s.daemon, "--json", *words)
        expect_equal((status, errors), (0, ""), f"status and errors of --json {words}")
        json.loads(out)
    for words in (["summary", "extra"], ["domain"], ["active"], ["message"], ["message", "fail"], ["flush"],
                  ["flush", "domain"], ["suspend", "domain"], ["reopen"], ["shutdown", "now"], ["counters", "a", "b"]):
        status, out, errors = run(s.daemon, *words)
        expect(status == 1 and out == "" and "usage" in errors or "did you mean" in errors or "unknown" in errors,
               f"{words}: {status} {out!r} {errors!r}")
    missing = set(arguments) - set(commands)
    expect(not missing, f"commands that are gone: {missing}")


test_every_command_answers_people_and_scripts.short = True


def test_shows_the_program_in_numbers(flow):
    s = Setup(flow)
    s.send(["a@later.test", "b@now.test"])
    s.wait_delayed(1)
    s.daemon.wait_lines("D", 1)
    wait_until(lambda: s.daemon.queued() == 1, "one queued delivery")
    v = s.daemon.console("summary")
    expect_equal({k: v[k] for k in ("received_messages", "successfully_delivered_messages", "failed_messages",
                                    "transient_failures", "delayed_queue_size", "active_queue_size", "domains",
                                    "spool_messages", "rejected_messages")},
                 {"received_messages": 1, "successfully_delivered_messages": 1, "failed_messages": 0,
                  "transient_failures": 1, "delayed_queue_size": 1, "active_queue_size": 0, "domains": 2,
                  "spool_messages": 1, "rejected_messages": 0}, "summary")
    status, out, _ = run(s.daemon, "summary")
    expect_equal(status, 0, "status")
    for text in ("Received messages:", "Delayed queue size:", "Uptime:", "Spool messages:"):
        expect(text in out, f"{text!r} is not in {out}")


def test_shows_domains_and_their_queues(flow):
    s = Setup(flow)
    for _ in range(3):
        s.send(["a@later.test", "b@now.test"])
    s.send("c@few.later.test")
    s.wait_delayed(3)
    s.wait_delayed(1, "few.later.test")
    s.daemon.wait_lines("D", 3)
    wait_until(lambda: s.daemon.queued() == 4, "four queued deliveries")
    for command in (("domain", "all"), ("domains",)):
        rows = {row["domain"]: row for row in s.daemon.console(*command)["domains"]}
        expect_equal({d: (r["delayed"], r["delivered"]) for d, r in rows.items()},
                     {"later.test": (3, 0), "now.test": (0, 3), "few.later.test": (1, 0)}, "domains")
    expect_equal([r["domain"] for r in s.daemon.console("mailq")["queues"]], ["later.test", "few.later.test"], "mailq")
    expect_equal(len(s.daemon.console("mailq", "1")["queues"]), 1, "mailq 1")
    expect_equal([r["domain"] for r in s.daemon.console("delayed", "1")["domains"]], ["later.test"], "delayed 1")
    expect_equal(s.daemon.console("active", "0")["domains"], [], "active 0")
    v = s.daemon.console("domain", "LATER.TEST.")
    expect_equal((v["domain"], v["counters"]["transient_failures"], v["queue"]["delayed"]), ("later.test", 3, 3),
                 "domain")
    expect_equal(v["next_hops"][0]["address"], f"127.0.0.1:{s.peer.port}", "next hop")
    expect(3000 < v["queue"]["next_due_in_s"] <= 3600, f"due in {v['queue']['next_due_in_s']} s")


def test_shows_fails_and_retries_a_message(flow):
    s = Setup(flow)
    first = s.send([f"r{i}@later.test" for i in range(15)])
    second = s.send()
    s.wait_delayed(2)
    v = s.daemon.console("message", first)
    expect_equal((v["sender"], v["recipients_in_all"], v["durability"], v["in_spool"]),
                 ("from@sender.test", 15, "synced", True), "message")
    row = v["deliveries"][0]
    expect_equal((row["domain"], row["place"], row["attempts"], row["recipients_pending"], len(row["recipients"])),
                 ("later.test", "delayed queue", 1, 15, 11), "delivery")
    expect_equal(len(s.daemon.console("message", first, "full")["deliveries"][0]["recipients"]), 15, "recipients")
    expect("450 4.2.1 later" in row["last_reply"], f"last reply: {row['last_reply']}")
    s.deferring = False
    expect_equal(s.daemon.console("message", "retry", second)["deliveries"], 1, "retried")
    expect_equal(s.peer.wait(1)[0].recipients, ["to@later.test"], "recipients")
    s.daemon.console("message", "fail", first, "quiet")
    expect_equal(len(s.daemon.wait_lines("P", 15)), 15, "P lines")
    wait_until(lambda: s.daemon.queued() == 0, "an empty queue")
    for words in (("message", first), ("message", "fail", first), ("message", "retry", first)):
        expect("no delivery" in s.daemon.console(*words, fail=True), f"{words} for a message that is gone")
    for text in ("x", "0" * 100, "../../etc/passwd"):
        expect("not a message id" in s.daemon.console("message", text, fail=True), f"message {text}")


test_shows_fails_and_retries_a_message.short = True


def test_flushes_suspends_resumes_and_fails_a_domain(flow):
    s = Setup(flow)
    s.send()
    s.wait_delayed(1)
    v = s.daemon.console("suspend", "domain", "later.test")
    expect_equal((v["state"], v["delayed"]), ("suspended", 1), "suspend")
    s.deferring = False
    s.daemon.console("flush", "domain", "later.test")
    v = s.daemon.console("domain", "later.test")
    expect_equal((v["state"], v["queue"]["active"], v["held_by"]), ("suspended", 1, "suspended"), "after flush")
    expect_equal(len(s.peer.mails), 0, "messages of a suspended domain")
    s.daemon.console("resume", "domain", "later.test")
    s.peer.wait(1)
    s.deferring = True
    for _ in range(4):
        s.send(["a@later.test", "b@other.later.test"])
    s.wait_delayed(4)
    s.wait_delayed(4, "other.later.test")
    expect_equal(s.daemon.console("fail", "domain", "later.test", "quiet")["messages_failed"], 4, "failed")
    s.daemon.wait_lines("P", 4)
    s.deferring = False
    expect_equal(s.daemon.console("flush", "domain", "all")["messages_flushed"], 4, "flushed")
    s.peer.wait(5)
    s.daemon.wait_for_rest()
    # A domain may be suspended before it has mail.
    s.daemon.console("suspend", "domain", "early.test")
    s.send("to@early.test")
    wait_until(lambda: s.daemon.console("domain", "early.test")["queue"]["active"] == 1, "mail for early.test")
    expect_equal(len(s.peer.mails), 5, "messages of a suspended domain")


test_flushes_suspends_resumes_and_fails_a_domain.short = True


def test_suspensions_end_by_themselves(flow):
    s = Setup(flow)
    v = s.daemon.console("suspend", "domain", "x.test", "for", "2h")
    expect(v["until_at"] is not None, f"no end: {v}")
    s.daemon.console("suspend", "binding", "default", "until", "2099-01-31T15:00Z")
    rows = s.daemon.console("suspensions")["suspensions"]
    expect_equal(sorted((r["domain"], r["binding"], r["until_at"]) for r in rows),
                 [("", "default", "2099-01-31T15:00:00Z"), ("x.test", "default", v["until_at"])], "suspensions")
    expect(all("uid" in r["by"] and r["since_at"] for r in rows), f"who and since when: {rows}")
    shown = s.daemon.console("domain", "x.test")
    expect(", until " in shown["reason"] and shown["held_until_at"] == v["until_at"], f"until when: {shown}")
    s.daemon.console("suspend", "domain", "x.test", "for", "1s")
    s.daemon.console("suspend", "binding", "default", "for", "1s")
    s.send("b@x.test")
    s.peer.wait(1)
    wait_until(lambda: s.daemon.console("suspensions")["suspensions"] == [], "the end of all suspensions")


def test_says_what_it_does_not_understand(flow):
    s = Setup(flow)
    for words, text in ((["frobnicate"], "unknown command"), (["flush"], "did you mean"), ([""], "empty"),
                        (["domain", "never-seen.test"], "no record of domain"),
                        (["flush", "domain", "never-seen.test"], "no record"),
                        (["resume", "domain", "never-seen.test"], "no record"),
                        (["fail", "domain", "never-seen.test"], "no record"),
                        (["domain", "a@b"], "not a domain name"), (["active", "many"], "not a whole number"),
                        (["active", "-1"], "not a whole number"), (["mailq", "0"], "1 to"),
                        (["fail", "domain", "x.test", "a", "loudly"], "usage"), (["counters", "no.such"], "no counter"),
                        (["help", "frobnicate"], "no command"), (["domain", '"x'], "quote")):
        status, out, errors = run(s.daemon, *words)
        expect(status == 1 and out == "" and text in errors, f"{words}: {status} {out!r} {errors!r}")
    status, _, errors = run(s.daemon, "summary", socket_path=flow.path / "nowhere")
    expect(status == 2 and "nowhere" in errors, f"no such socket: {status} {errors!r}")


def test_lists_agents_and_threads(flow):
    daemon = Daemon(flow, schedulers=2, extra_agents='''group service { idle = "backoff" }
agent wheel { group = "service" } agent log { group = "service" }
agent spool { count = 2 idle = "sleep" } agent pool { count = 3 }''')
    v = daemon.console("threads")
    agents = {a["agent"]: a for a in v["agents"]}
    threads = {t["thread"]: t for t in v["threads"]}
    wanted = {"master", "scheduler.0", "scheduler.1", "spool.0", "spool.1", "wheel", "log"}
    expect(wanted <= set(agents), f"agents are {sorted(agents)}")
    expect_equal({agents[a]["thread"] for a in ("wheel", "log")}, {"service"}, "thread of wheel and log")
    expect_equal(agents["master"]["thread"], agents["scheduler.0"]["thread"], "thread of the master")
    expect(agents["scheduler.0"]["thread"] != agents["scheduler.1"]["thread"], "schedulers share a thread")
    expect_equal((threads["service"]["idle"], threads["spool.0"]["idle"], threads["scheduler.0"]["idle"]),
                 ("backoff", "sleep", "park"), "idle strategies")
    for thread in threads.values():
        expect(thread["idle"] in IDLE and thread["lost_wakeups"] == 0, f"a thread is {thread}")
        expect("core" in thread and "pinned" in thread, f"a thread is {thread}")
    for agent in agents.values():
        expect(agent["thread"] in threads and agent["tasks"] >= 0, f"an agent is {agent}")
    text = run(daemon, "threads")[1]
    for name in wanted | {"backoff", "sleep", "park"}:
        expect(name in text, f"{name} is not in {text}")


def test_lists_counters_by_pattern(flow):
    daemon = Daemon(flow)
    names = {row["counter"] for row in daemon.console("counters")}
    expect(len(names) > 60, f"{len(names)} counters")
    some = {row["counter"] for row in daemon.console("counters", "scheduler.0.smtp_*")}
    expect_equal(some, {n for n in names if n.startswith("scheduler.0.smtp_")}, "counters of a pattern")
    part = {row["counter"] for row in daemon.console("counters", "delivered")}
    expect_equal(part, {n for n in names if "delivered" in n}, "counters with a word")
    expect(all(row["meaning"] for row in daemon.console("counters")), "a counter without a meaning")


def test_answers_many_commands_on_one_connection(flow):
    daemon = Daemon(flow)
    with socket.socket(socket.AF_UNIX) as s, s.makefile("rb") as file:
        s.settimeout(60)
        s.connect(str(daemon.control))
        s.sendall(b"version\nsummary\nnonsense\n" + b"version\r\n" * 200)
        answers = [json.loads(file.readline()) for _ in range(203)]
        expect_equal([a["ok"] for a in answers], [True, True, False] + [True] * 200, "answers")
        s.sendall(b"x" * 100000 + b"\n")
        line = file.readline()
        expect(line == b"" or not json.loads(line)["ok"], f"a line of 100 KB was answered {line!r}")
    status, out, errors = run(daemon, stdin="version\n# a comment\n\nsummary\nquit\nnonsense\n")
    expect(status == 0 and "Pid:" in out and "Uptime:" in out and errors == "", f"{status} {out!r} {errors!r}")
    status, _, errors = run(daemon, stdin="nonsense\nversion\n")
    expect(status == 1 and "unknown" in errors, f"{status} {errors!r}")


test_answers_many_commands_on_one_connection.short = True


def test_survives_consoles_that_leave(flow):
    s = Setup(flow)
    s.send()
    for data in (b"", b"summ", b"summary\n", b"domains\nmessage\nerrors\n" * 50, b"\xff\xfe\0\n", b"help"):
        for _ in range(5):
            with socket.socket(socket.AF_UNIX) as c:
                c.connect(str(s.daemon.control))
                c.sendall(data)
    expect_equal(s.daemon.console("version")["program"], "flywheel", "program")
    wait_until(lambda: s.daemon.console("summary")["inbound_concurrency"] <= 1, "their connections to end")


def test_only_owner_and_group_may_use_the_socket(flow):
    daemon = Daemon(flow)
    mode = stat.S_IMODE(os.stat(daemon.control).st_mode)
    expect_equal(oct(mode), oct(0o660), "mode of the socket")
    if os.getuid() != 0:
        return
    # A stranger whom the mode lets in is asked by the program itself who he is.
    os.chmod(flow.path, 0o755)
    os.chmod(daemon.control, 0o666)
    code = ("import os, socket, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "s = socket.socket(socket.AF_UNIX); s.settimeout(30); s.connect(sys.argv[1])\n"
            "s.sendall(b'shutdown\\n'); print(s.recv(1000).decode())\n")
    done = subprocess.run(["python3", "-c", code, daemon.control], capture_output=True, text=True, timeout=60)
    expect('"ok":true' not in done.stdout, f"nobody was answered {done.stdout}")
    expect_equal(daemon.console("version")["program"], "flywheel", "program")


def test_stops_the_program(flow):
    s = Setup(flow)
    s.send()
    expect_equal(s.daemon.console("shutdown")["program"], "is stopping", "answer")
    s.daemon.process.wait(60)
    expect_equal(s.daemon.process.returncode, 0, "exit status")
    expect(not os.path.exists(s.daemon.control), "the socket is still there")
    try:
        s.daemon.console("version")
    except Failure:
        pass
    else:
        raise Failure("the console is still answered")
    s.daemon.start()
    wait_until(lambda: s.daemon.queued() == 1, "the message after the stop")


def test_writes_down_who_changed_what(flow):
    s = Setup(flow)
    s.daemon.console("suspend", "domain", "x.test")
    path = s.daemon.log / "paniclog"
    text = wait_until(lambda: path.exists() and path.read_text(), "a line in the panic log")
    expect("suspend domain x.test" in text, f"the panic log has {text}")


def test_opens_log_files_anew(flow):
    s = Setup(flow)
    s.send("to@now.test")
    s.daemon.wait_lines("D", 1)
    for how in ("command", "signal"):
        log = s.daemon.log / "mainlog"
        log.rename(s.daemon.log / f"mainlog.{how}")
        s.daemon.console("reopen", "logs") if how == "command" else s.daemon.process.send_signal(1)
        wait_until(log.exists, "a new main log")
        s.send("to@now.test")
        s.daemon.wait_lines("D", 1)
        expect_equal([line[4] for line in s.daemon.lines() if line[4] in "RD"], ["R", "D"], "lines in the new log")
