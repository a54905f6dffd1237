"""The configuration of a running program: asked, changed, committed, written back into the files."""

import json
import socket
import subprocess

from disks import command, own_mounts
from flow import Daemon, expect, expect_equal, wait_until
from http_client import Server

HELLO = "Subject: hello\r\n\r\nhello\r\n"
BASE = 'domain "a.test" {\n\tmax_outbound_connections = 3 # few\n}\ndomain "/\\.b\\.test$/" { retry_interval = 7m }\n'


class Console:
    """One connection, as an interactive console has it."""

    def __init__(self, daemon):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(daemon.control))
        self.file = self.socket.makefile("rb")

    def say(self, line):
        self.socket.sendall(line.encode() + b"\n")
        return json.loads(self.file.readline())

    def good(self, line):
        answer = self.say(line)
        expect(answer["ok"], f"{line}: {answer}")
        return answer["result"]

    def bad(self, line, says):
        answer = self.say(line)
        expect(not answer["ok"] and says in answer["error"], f"{line}: {answer}, not {says!r}")

    def close(self):
        self.file.close()
        self.socket.close()


def people(daemon, *words):
    """What the console prints for people."""
    done = subprocess.run([daemon.flow.program("flywheel"), "-s", daemon.control, *words], capture_output=True,
                          text=True, timeout=60)
    expect_equal((done.returncode, done.stderr), (0, ""), f"status and errors of {words}")
    return done.stdout


def line_of(daemon, text):
    lines = daemon.config.read_text().split("\n")
    return f"{daemon.config}:{next(i for i, line in enumerate(lines, 1) if text in line)}"


def test_is_asked_for_values_and_who_set_them(flow):
    d = Daemon(flow, text=BASE)
    few = line_of(d, "# few")
    expect_equal(d.console("config", "get", "domain", "A.test", "Max_Outbound_Connections"),
                 {"scope": 'domain "a.test"', "option": "max_outbound_connections", "value": "3", "origin": few}, "get")
    v = d.console("config", "get", "domain", "a.test", "retry_interval")
    expect_equal((v["value"], v["origin"]), (None, "not set here"), "get of what is not set")
    v = d.console("config", "eval", "domain", "x.b.test", "retry_interval")
    expect_equal((v["value"], v["set_in"], v["origin"]), ("7m", 'domain "/\\.b\\.test$/"', line_of(d, "7m")), "eval")
    v = d.console("config", "eval", "binding", "b", "domain", "x.test", "remote_smtp_port")
    expect_equal((v["value"], v["set_in"], v["origin"]), ("25", "default", "default"), "eval of a default")
    rows = d.console("config", "locate", "max_outbound_connections")["places"]
    expect_equal([(r["scope"], r["value"], r["origin"], r["counts"]) for r in rows],
                 [('domain "a.test"', "3", few, True)], "locate")
    expect_equal(d.console("config", "locate", "max_outbound_connections", "4")["places"], [], "locate of a value")
    expect_equal(d.console("config", "locate", "domain", "a.test")["places"], rows, "locate of a scope")
    rows = d.console("config", "show", "domain", "a.test")["settings"]
    expect_equal([(r["option"], r["value"], r["origin"]) for r in rows], [("max_outbound_connections", "3", few)],
                 "show")
    everything = d.console("config", "show")["settings"]
    expect(any(r["option"] == "ring_slots" and r["origin"] == "default" for r in everything), "no default is shown")
    v = d.console("config", "diff")
    expect_equal((v["console"], v["transaction"], v["differences"], v["problems_of_the_files"]), ([], [], [], None),
                 "diff")
    for words, says in ((("get", "domain", "a.test", "ring_slots"), "not possible here"),
                        (("get", "nothing"), "unknown"), (("eval", "ring_slots", "extra"), "is too much"),
                        (("show", "domain", "none.test"), "there is no scope"), (("show", "nothing"), "there is no"),
                        (("locate", "nothing"), "no option is called")):
        error = d.console("config", *words, fail=True)
        expect(says in error, f"{words}: {error}, not {says!r}")
    expect(few in people(d, "config", "get", "domain", "a.test", "max_outbound_connections"), "get for people")
    expect("7m" in people(d, "config", "eval", "domain", "x.b.test", "retry_interval"), "eval for people")
    expect("# few" not in people(d, "config", "show"), "show for people")
    expect(few in people(d, "config", "locate", "max_outbound_connections"), "locate for people")


def test_pattern_applies_to_mail(flow):
    d = Daemon(flow, text='domain "/^slow[0-9]*\\./" { suspend_delivery = true }\ndomain "slow2.test" { }\n',
               sink_port=1)
    for domain in ("slow1.test", "slow2.test"):
        expect_equal(d.connect().mail(f"to@{domain}", body=HELLO)[0], 250, "reply")
    wait_until(lambda: d.console("domain", "slow2.test")["queue"]["delayed"] == 1, "an attempt for slow2.test")
    v = d.console("domain", "slow1.test")
    expect_equal((v["state"], v["queue"]["active"]), ("suspended", 1), "what the pattern does to slow1.test")
    why = json.dumps(d.console("why", "domain", "slow1.test"))
    expect("slow[0-9]" in why, f"why does not name the pattern: {why}")


def limit_of(daemon, domain):
    rows = daemon.console("domain", domain)["limits"]
    return next(row["value"] for row in rows if row["limit"] == "max_outbound_connections")


def test_set_takes_effect_at_once_and_ends_with_the_program(flow):
    d = Daemon(flow, text=BASE, sink_port=1)
    expect_equal(d.connect().mail("to@a.test", body=HELLO)[0], 250, "reply")
    wait_until(lambda: d.queued() == 1, "queued mail")
    v = d.console("config", "set", "domain", "a.test", "max_outbound_connections", "5")
    expect_equal((v["value"], v["restart_needed"]), ("5", False), "set")
    expect("until a restart" in v["lasts"], f"{v} does not say for how long")
    wait_until(lambda: limit_of(d, "a.test") == 5, "the new limit")
    v = d.console("config", "get", "domain", "a.test", "max_outbound_connections")
    expect(v["origin"].startswith("set by the console, 20"), f"origin: {v}")
    expect("set by the console, 20" in json.dumps(d.console("config", "locate", "max_outbound_connections")), "locate")
    (row,) = d.console("config", "diff")["differences"]
    expect_equal((row["running"], row["files"], row["files_origin"]), ("5", "3", line_of(d, "# few")), "diff")
    (row,) = d.console("config", "diff")["console"]
    expect_equal((row["scope"], row["option"], row["change"], row["value"]),
                 ('domain "a.test"', "max_outbound_connections", "set", "5"), "what the console has set")
    error = d.console("config", "set", "domain", "a.test", "max_outbound_connections", "many", fail=True)
    expect('"many" is not a number; expected a number from' in error, f"refused by {error}")
    error = d.console("config", "set", "retry_interval", "1", "2", fail=True)
    expect("is not one value" in error, f"refused by {error}")
    error = d.console("config", "set", "max_outbound_connections", fail=True)
    expect("usage" in error, f"refused by {error}")
    expect_equal(d.console("config", "get", "domain", "a.test", "max_outbound_connections")["value"], "5", "value")
    # It survives a reload, also of files that say something else.
    d.config.write_text(d.config.read_text().replace("= 3 # few", "= 4 # few"))
    d.console("config", "reload")
    expect_equal(d.console("config", "get", "domain", "a.test", "max_outbound_connections")["value"], "5", "value")
    d.console("config", "unset", "domain", "a.test", "max_outbound_connections")
    expect_equal(d.console("config", "get", "domain", "a.test", "max_outbound_connections")["value"], "4", "files'")
    d.console("config", "unset", "domain", "a.test", "max_outbound_connections")
    v = d.console("config", "get", "domain", "a.test", "max_outbound_connections")
    expect_equal(v["origin"], "not set here", "what the files say, unset")
    error = d.console("config", "unset", "domain", "a.test", "max_outbound_connections", fail=True)
    expect("is not set" in error, f"refused by {error}")
    for words in (["(", "127.0.0.0/8", "10.0.0.0/8", ")"], ["( 127.0.0.0/8 10.0.0.0/8 )"]):
        d.console("config", "set", "relay_hosts", *words)
        expect_equal(d.console("config", "get", "relay_hosts")["value"], '( "127.0.0.0/8" "10.0.0.0/8" )', "a list")
    v = d.console("config", "set", "ring_slots", "=", "128")
    expect_equal((v["restart_needed"], v["not_applied"][0]["option"]), (True, "ring_slots"), "restart only")
    d.terminate()
    d.start()
    expect_equal(d.console("config", "get", "domain", "a.test", "max_outbound_connections")["value"], "4", "restarted")
    expect_equal(d.console("config", "diff")["console"], [], "what the console has set after a restart")
    expect("Lasts" in people(d, "config", "set", "domain", "a.test", "retry_interval", "5m"), "set for people")
    expect("Generation" in people(d, "config", "unset", "domain", "a.test", "retry_interval"), "unset for people")


def value_of(daemon, option):
    return daemon.console("config", "get", "domain", "a.test", option)["value"]


def test_transaction_takes_effect_as_a_whole(flow):
    d = Daemon(flow, text=BASE)
    one, two = Console(d), Console(d)
    one.bad("config commit", "no transaction")
    one.bad("config rollback", "no transaction")
    one.good("config begin")
    one.bad("config begin", "has begun")
    expect_equal(one.good('config set domain "a.test" retry_interval "5m"')["changes"], 1, "changes")
    expect_equal(one.good("config unset domain a.test max_outbound_connections")["changes"], 2, "changes")
    expect_equal((value_of(d, "retry_interval"), value_of(d, "max_outbound_connections")), (None, "3"), "not committed")
    rows = one.good("config diff")["transaction"]
    expect_equal([(r["option"], r["change"], r["value"]) for r in rows],
                 [("retry_interval", "set", '"5m"'), ("max_outbound_connections", "unset", None)], "diff")
    expect_equal(two.good("config diff")["transaction"], [], "diff of another one")
    expect_equal(one.good("config commit")["changes"], 2, "commit")
    expect_equal((value_of(d, "retry_interval"), value_of(d, "max_outbound_connections")), ("5m", None), "committed")
    # Given up; and abandoned.
    one.good("config begin")
    one.good("config set domain a.test retry_interval 9m")
    expect_equal(one.good("config rollback")["changes_given_up"], 1, "rollback")
    one.bad("config commit", "no transaction")
    three = Console(d)
    three.good("config begin")
    three.good("config set domain a.test retry_interval 9m")
    three.close()
    expect_equal(value_of(d, "retry_interval"), "5m", "given up")
    # One that is wrong changes nothing, and goes on.
    one.good("config begin")
    one.good("config set domain a.test max_outbound_connections 8")
    one.good("config set domain a.test retry_interval never")
    one.bad("config commit", "never")
    expect_equal(value_of(d, "max_outbound_connections"), None, "refused as a whole")
    one.good("config set domain a.test retry_interval 6m")
    one.good("config commit")
    expect_equal((value_of(d, "retry_interval"), value_of(d, "max_outbound_connections")), ("6m", "8"), "mended")
    # What is said twice is done twice: the console's own value goes, and the files say nothing.
    for line in ("config begin", "config set domain a.test retry_interval 7m", "config unset domain a.test retry_interval"):
        one.good(line)
    expect_equal(one.good("config commit")["changes"], 2, "steps")
    expect_equal(value_of(d, "retry_interval"), None, "unset after set")
    one.good("config set domain a.test retry_interval 6m")
    # Two of the same option: the second is told.
    one.good("config begin")
    two.good("config begin")
    one.good("config set domain a.test retry_interval 10m")
    two.good("config set domain a.test retry_interval 11m")
    two.good("config set domain a.test max_recipients_per_batch 7")
    one.good("config commit")
    two.bad("config commit", 'domain "a.test" retry_interval would be overwritten: it is 10m, set by the console')
    expect_equal((value_of(d, "retry_interval"), value_of(d, "max_recipients_per_batch")), ("10m", None), "refused")
    two.good("config commit force")
    expect_equal((value_of(d, "retry_interval"), value_of(d, "max_recipients_per_batch")), ("11m", "7"), "forced")
    one.close()
    two.close()


def test_secrets_are_shown_to_nobody(flow):
    d = Server(flow, scope='token = "whisper-of-the-file"').daemon
    one = Console(d)
    one.good("config begin")
    told = [one.good("config set http_listener token whisper-of-one"),
            d.console("config", "set", "http_listener", "token", '"whisper-of-another"')]
    diff = one.good("config diff")
    expect_equal([[row["value"] for row in diff[rows]] for rows in ("transaction", "console")], [["(a secret)"]] * 2, "diff")
    expect_equal([(r["running"], r["files"]) for r in diff["differences"]], [("(a secret)", "(a secret)")], "differences")
    told += [diff] + [one.good(f"config {words}") for words in ("get http_listener token", "eval http_listener token",
                                                               "show http_listener", "locate token")]
    expect("whisper" not in json.dumps(told), f"a secret is told: {told}")
    # That it was changed meanwhile is told, though both are shown alike.
    one.bad("config commit", "http_listener token would be overwritten: it is (a secret), set by the console")
    # Nor is it written down; other values are.
    one.bad("config set http_listener tokens whisper-of-a-slip", "tokens")
    one.good("config set HTTP_listener Token = whisper-of-two")
    one.good("config set http_listener max_requests 7 # few")
    one.close()
    d.wait_panic("max_requests 7 # few")
    lines = [line.split("): ", 1)[1] for line in (d.log / "paniclog").read_text().splitlines() if "config set" in line]
    expect_equal(lines, ["config set http_listener token (a secret)"] * 2 +
                 ["config set ...", "config set HTTP_listener Token (a secret)", "config set http_listener max_requests 7 # few"],
                 "orders")


def test_writeback_saves_into_the_files(flow):
    sub = flow.path / "conf.d"
    sub.mkdir()
    (sub / "10.conf").write_text("# first\ndomain \"c.test\" {\n\tretry_interval = 3m # c\n}\n")
    (flow.path / "fixed.conf").write_text('domain "fixed.test" { retry_interval = 3m }\n')
    d = Daemon(flow, text=BASE + "include conf.d\nreadonly_include fixed.conf\n")
    before = d.config.read_text()
    error = d.console("config", "writeback", fail=True)
    expect("has set nothing" in error, f"refused by {error}")
    d.console("config", "set", "domain", "a.test", "max_outbound_connections", "5")
    d.console("config", "set", "domain", "c.test", "retry_interval", "4m")
    d.console("config", "set", "domain", "new.test", "retry_interval", "5m")
    v = d.console("config", "writeback")
    expect_equal((v["changes"], sorted(v["files"])), (3, sorted([str(d.config), str(sub / "10.conf")])), "writeback")
    expect_equal(d.config.read_text(), before.replace("= 3 # few", "= 5 # few") +
                 '\ndomain "new.test" {\n    retry_interval = 5m\n}\n', "the main file")
    expect_equal((sub / "10.conf").read_text(), "# first\ndomain \"c.test\" {\n\tretry_interval = 4m # c\n}\n",
                 "the included file")
    v = d.console("config", "diff")
    expect_equal((v["console"], v["differences"]), ([], []), "diff after writeback")
    v = d.console("config", "get", "domain", "a.test", "max_outbound_connections")
    expect_equal((v["value"], v["origin"]), ("5", line_of(d, "# few")), "origin after writeback")
    expect_equal(sorted(p.name for p in sub.iterdir()), ["10.conf"], "files")
    # Refused: a file that is not to be written, and one that was changed.
    d.console("config", "set", "domain", "fixed.test", "retry_interval", "4m")
    error = d.console("config", "writeback", fail=True)
    expect("fixed.conf: was included by readonly_include" in error, f"refused by {error}")
    d.console("config", "unset", "domain", "fixed.test", "retry_interval")
    d.console("config", "set", "domain", "c.test", "retry_interval", "6m")
    (sub / "10.conf").write_text("# edited\n" + (sub / "10.conf").read_text())
    error = d.console("config", "writeback", fail=True)
    expect("10.conf: was changed since the configuration was loaded" in error, f"refused by {error}")
    d.console("config", "reload")
    d.console("config", "unset", "domain", "new.test", "retry_interval")
    expect("10.conf" in people(d, "config", "writeback"), "writeback for people")
    expect_equal((sub / "10.conf").read_text(),
                 "# edited\n# first\ndomain \"c.test\" {\n\tretry_interval = 6m # c\n}\n", "the included file")
    expect("new.test\" {\n}" in d.config.read_text(), "the line of what was unset is there")
    d.terminate()
    d.start()
    expect_equal(d.console("config", "get", "domain", "c.test", "retry_interval")["value"], "6m", "after a restart")


def test_writeback_that_fails_midway_lists_what_it_wrote(flow):
    """A file that something is mounted on cannot be put in its place."""
    own_mounts()
    main = flow.path / "10.conf"
    main.write_text('domain "c.test" { retry_interval = 3m }\n')
    d = Daemon(flow, text=BASE + "include 10.conf\n")
    command("mount", "--bind", main, main, what="mount a file")
    try:
        d.console("config", "set", "domain", "a.test", "max_outbound_connections", "5")
        d.console("config", "set", "domain", "c.test", "retry_interval", "4m")
        error = d.console("config", "writeback", fail=True)
    finally:
        subprocess.run(["umount", main], check=True)
    lines = error[error.index("nothing that runs"):].strip().splitlines()
    expect_equal(lines[0], "nothing that runs has changed:", "the answer")
    expect("10.conf: cannot put a new file in its place" in lines[1], f"why not: {error}")
    expect_equal(lines[2:], [f"{d.config}: was written"], "what was written")
    expect("= 5 # few" in d.config.read_text(), "the main file is not written")
    expect_equal(main.read_text(), 'domain "c.test" { retry_interval = 3m }\n', "the other file")
    expect_equal(d.console("config", "get", "domain", "c.test", "retry_interval")["value"], "4m", "what runs")


def test_layers_of_files_by_node(flow):
    config = flow.path / "layers.conf"
    config.write_text('esmtp_listener { listen "127.0.0.1:2525" { } }\ninclude limits.conf\n')
    (flow.path / "limits.conf").write_text("ring_slots = 64\n")
    for name, text in (("node/n1/limits.conf", "ring_slots = 128\n"), ("subcluster/east/limits.conf", "ring_slots = 256\n"),
                       ("node/n2/subcluster", "east\n")):
        (flow.path / name).parent.mkdir(parents=True, exist_ok=True)
        (flow.path / name).write_text(text)

    def run(*words):
        done = subprocess.run([flow.program("flywheeld"), "--config", config, *words], capture_output=True, text=True,
                              timeout=60)
        expect_equal((done.returncode, done.stderr), (0, ""), f"status and errors of {words}")
        return done.stdout

    for node, file, value in (("n1", "node/n1/limits.conf", 128), ("n2", "subcluster/east/limits.conf", 256),
                              ("n3", "limits.conf", 64)):
        path = flow.path / file
        expect_equal(run("--check", "--node", node), f"configuration valid\n  {config}\n  {path}\n", f"--check on {node}")
        out = run("--dump", "--node", node)
        expect(out.startswith(f"# from {config}\n# from {path}\n"), f"--dump on {node}: {out[:200]}")
        expect(f"ring_slots = {value}\t# {path}:1\n" in out, f"--dump on {node}: {out}")


def test_http_shows_what_changes_nothing(flow):
    server = Server(flow, text=BASE)
    expect_equal(server.api("config/get/domain/a.test/max_outbound_connections")["value"], "3", "get")
    expect_equal(server.api("config/eval/domain/x.b.test/retry_interval")["value"], "7m", "eval")
    expect_equal(len(server.api("config/show/domain/a.test")["settings"]), 1, "show")
    expect_equal(len(server.api("config/locate/max_outbound_connections")["places"]), 1, "locate")
    expect_equal(server.api("config/diff")["console"], [], "diff")
    for path in ("set/domain/a.test/retry_interval/5m", "begin", "commit", "rollback", "writeback",
                 "unset/domain/a.test/max_outbound_connections"):
        expect_equal(server.ask(f"/api/v1/config/{path}").status, 405, f"status of {path}")
    expect_equal(value_of(server.daemon, "max_outbound_connections"), "3", "value")
