"""Traces of SMTP dialogues: which connections, what is written, what is hidden, and where it ends."""

import os
import pathlib
import re
import stat

from certificates import Certificates
from flow import Client, Daemon, expect, expect_equal, wait_until
from peer import Peer
from test_bindings import TWO, message
from test_extensions import USERS, credentials, proxied
from test_tls import start_tls, tls_options

LINE = re.compile(r"^\d+\.\d{3} (in |out|-  ) (\S+) +([CS*][:>]?)( .*)?$")


def add(daemon, *words):
    return daemon.console("trace", "smtp", "add", *words)


def remove(daemon, trace):
    return daemon.console("trace", "smtp", "remove", str(trace["trace"]))


def listed(daemon, trace):
    return {row["trace"]: row for row in daemon.console("trace", "smtp", "list")}[trace["trace"]]


def lines_of(daemon, trace):
    """Ends the trace, so that all of it is in the file: its lines, without time and connection."""
    remove(daemon, trace)
    rows = []
    for line in open(trace["file"], encoding="utf-8"):
        match = LINE.match(line.rstrip("\n"))
        expect(match, f"a line of {trace['file']}: {line!r}")
        rows.append((match[1].strip(), match[2], match[3] + (match[4] or "")))
    return rows


def said(rows, direction=None, connection=None):
    return [text for way, number, text in rows
            if direction in (None, way) and connection in (None, number)]


def wait_closed(daemon, trace, count=1):
    """So many connections were traced, and are over."""
    def over():
        row = listed(daemon, trace)
        return row["connections"] >= count and row["open"] == 0
    wait_until(over, f"{count} traced connections to end")


def test_whole_dialogues_in_and_out_are_in_the_file(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text="idle_timeout = 1")
    trace = add(daemon)
    expect_equal(os.path.basename(trace["file"]), "trace-1.log", "the file")
    expect_equal(stat.S_IMODE(os.stat(trace["file"]).st_mode), 0o600, "its mode")
    client = daemon.connect()
    code, _ = client.mail("to@there.test", body="Subject: hidden\r\n\r\nnot to be seen\r\n")
    expect_equal(code, 250, "reply")
    client.say("QUIT", 221)
    client.close()
    peer.wait(1)
    wait_closed(daemon, trace, 2)
    rows = lines_of(daemon, trace)
    incoming = said(rows, "in")
    expect(incoming[0].startswith("* from 127.0.0.1:") and incoming[0].endswith(f"to 127.0.0.1:{daemon.port}"),
           f"first line {incoming[0]}")
    expect(incoming[1].startswith("S: 220 "), f"banner {incoming[1]}")
    commands = [t for t in incoming if t.startswith("C")]
    expect_equal(commands, ["C: EHLO client.test", "C: MAIL FROM:<from@sender.test>", "C: RCPT TO:<to@there.test>",
                            "C: DATA", "C: (35 octets of content)", "C: .", "C: QUIT"], "what the client said")
    expect("S: 354 End data with <CR><LF>.<CR><LF>" in incoming, "the reply to DATA")
    expect(incoming.index("C: .") < next(i for i, t in enumerate(incoming) if "queued as" in t), "order")
    expect_equal(incoming[-1], "* closed", "last line of the reception")
    outgoing = said(rows, "out")
    expect(outgoing[0].startswith(f"* to 127.0.0.1:{peer.port} by binding default for there.test"), outgoing[0])
    expect_equal(outgoing[1], "* connected", "second line")
    for text in ("C: EHLO flow.test", "C: MAIL FROM:<from@sender.test>", "C: RCPT TO:<to@there.test>", "C: ."):
        expect(any(line.startswith(text) for line in outgoing), f"{text} is not in {outgoing}")
    expect("not to be seen" not in open(trace["file"]).read(), "content is in the trace")
    expect(rows[-1][2].startswith("* the trace ends: 2 connections"), rows[-1][2])


test_whole_dialogues_in_and_out_are_in_the_file.short = True
test_whole_dialogues_in_and_out_are_in_the_file.backends = ["uring", "epoll", "poll"]


def test_content_is_written_when_asked_for_without_its_tokens(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port)
    trace = add(daemon, "content", "direction", "in")
    body = ("Subject: a\tb\r\nX-Api-Token: topsecret\r\n and topsecret folded\r\nX-Mailer: shown\r\n"
            "Authorization: Bearer topsecret\r\n\r\n..stuffed\r\nX-Api-Token: this is text\r\n")
    client = daemon.connect()
    client.mail("to@there.test", body=body)
    client.say("EHLO client.test", 250)
    client.say("MAIL FROM:<from@sender.test>", 250)
    client.say("RCPT TO:<to@there.test>", 250)
    client.send("BDAT 20\r\nX-Secret-Key: topsec")
    expect_equal(client.reply()[0], 250, "first chunk")
    client.send("BDAT 16 LAST\r\nret\r\n\r\nchunked\r\n")
    expect_equal(client.reply()[0], 250, "last chunk")
    client.close()
    wait_closed(daemon, trace)
    rows = said(lines_of(daemon, trace))
    content = [t[3:] for t in rows if t.startswith("C> ") or t == "C>"]
    expect_equal(content, ["Subject: a\\tb", "X-Api-Token: (10 octets hidden)", "(21 octets hidden)", "X-Mailer: shown",
                           "Authorization: (17 octets hidden)", "", "..stuffed", "X-Api-Token: this is text",
                           "X-Secret-Key: (10 octets hidden)", "", "chunked"], "content")
    expect("topsec" not in open(trace["file"]).read(), "a token is in the trace")
    expect("C: BDAT 16 LAST" in rows and "C: (16 octets of content)" in rows, f"chunks in {rows}")


def test_secrets_of_auth_are_never_in_a_trace(flow):
    users = flow.path / "users"
    users.write_text(USERS)
    daemon = Daemon(flow, listener=f'auth_file = "{users}"\nallow_plain_auth = true')
    trace = add(daemon, "direction", "in")
    right, wrong = credentials("", "sha", "open sesame"), credentials("", "sha", "wrong word")
    user, password = credentials("sha"), credentials("wrong word")
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    client.say(f"AUTH PLAIN {wrong}", 535)
    client.say("AUTH LOGIN", 334)
    client.say(user, 334)
    client.say(password, 535)
    # Those who do not listen to replies, and who forget the mechanism.
    client.say(f"AUTH {right}", 504)
    client.say(right)
    client.send(f"auth login\r\n{user}\r\n{password}\r\n")
    expect_equal([client.reply()[0] for _ in range(3)], [334, 334, 421], "replies")
    client.close()
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    client.say("AUTH PLAIN", 334)
    client.say(right, 235)
    client.say("XSHOWN again", 500)
    client.close()
    wait_closed(daemon, trace, 2)
    rows = lines_of(daemon, trace)
    text = open(trace["file"]).read()
    for secret in (right, wrong, user, password, "sesame", "wrong"):
        expect(secret not in text, f"{secret} is in the trace: {text}")
    # Those of two schedulers are written in any order.
    found = [[re.sub(r"\d+", "N", t) for t in said(rows, "in", number) if t.startswith("C")]
             for number in {number for way, number, _ in rows if way == "in"}]
    expect_equal(sorted(found, key=len), [
        ["C: EHLO client.test", "C: AUTH PLAIN", "C: (N octets hidden)", "C: XSHOWN again"],
        ["C: EHLO client.test", "C: AUTH PLAIN (N octets hidden)", "C: AUTH LOGIN", "C: (N octets hidden)",
         "C: (N octets hidden)", "C: AUTH (N octets hidden)", "C: (N octets hidden)", "C: auth login",
         "C: (N octets hidden)", "C: (N octets hidden)"]], "what clients said")


test_secrets_of_auth_are_never_in_a_trace.short = True


def test_conditions_choose_connections(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text=TWO)
    traces = {words: add(daemon, *words) for words in (
        ("domain", "One.Test"), ("peer", "127.0.0.2", "direction", "in"), ("peer", "127.0.0.0/30", "direction", "in"),
        ("binding", "a"), ("listener", f"127.0.0.1:{daemon.port}", "domain", "two.test"),
        ("sample", "1/2", "direction", "in"), ("max", "1", "direction", "in"), ("peer", "192.0.2.1"))}
    count = 0
    for source, domain, binding in (("127.0.0.1", "one.test", "a"), ("127.0.0.2", "two.test", "b"),
                                    ("127.0.0.5", "two.test", "b")):
        client = Client(daemon.port, source=source)
        expect_equal(client.mail(f"to@{domain}", body=message(binding))[0], 250, "reply")
        client.close()
        count += 1
        peer.wait(count)
    daemon.wait_for_clients()
    wait_until(lambda: daemon.counter("scheduler.outbound.open") == 0, "deliveries' connections to end")
    found = {}
    for words, trace in traces.items():
        rows = lines_of(daemon, trace)
        found[words] = sorted((way, len({number for w, number, _ in rows if w == way})) for way in {r[0] for r in rows}
                              if way != "-")
    here = f"127.0.0.1:{daemon.port}"
    expect_equal(found, {
        ("domain", "One.Test"): [("in", 1), ("out", 1)],
        ("peer", "127.0.0.2", "direction", "in"): [("in", 1)],
        ("peer", "127.0.0.0/30", "direction", "in"): [("in", 2)],
        ("binding", "a"): [("out", 1)],
        ("listener", here, "domain", "two.test"): [("in", 2)],
        ("sample", "1/2", "direction", "in"): [("in", 2)],
        ("max", "1", "direction", "in"): [("in", 1)],
        ("peer", "192.0.2.1"): [],
    }, "connections of each trace")
    # What came before the recipient told whose it is was kept.
    text = open(traces[("domain", "One.Test")]["file"]).read()
    for line in ("in  N S: 220", "in  N C: EHLO client.test", "in  N C: MAIL FROM:<from@sender.test>",
                 "in  N C: RCPT TO:<to@one.test>"):
        expect(line in re.sub(r"in  [0-9a-f]+ ", "in  N ", text), f"{line!r} is not in {text}")
    expect("two.test" not in text, "another domain's mail is in the trace")


def test_a_session_that_runs_is_traced_from_its_next_command_on(flow):
    daemon = Daemon(flow, text='suspend_delivery = true')
    idle, writing = daemon.connect(), daemon.connect()
    idle.say("EHLO idle.test", 250)
    writing.say("EHLO writing.test", 250)
    writing.say("MAIL FROM:<from@sender.test>", 250)
    writing.say("RCPT TO:<to@there.test>", 250)
    writing.say("DATA", 354)
    writing.send("Subject: private\r\n\r\nMAIL FROM:<not@command.test>\r\n")
    trace = add(daemon, "direction", "in", "content")
    idle.say("NOOP", 250)
    writing.send("private\r\n")
    writing.say(".", 250)
    writing.say("NOOP", 250)
    writing.close()
    idle.close()
    wait_closed(daemon, trace, 2)
    rows = lines_of(daemon, trace)
    numbers = sorted({number for way, number, _ in rows if way == "in"})
    dialogues = [said(rows, connection=n) for n in numbers]
    expect(all(re.match(r"\* goes on: from 127\.0\.0\.1:\d+ to", d[0]) for d in dialogues), f"{dialogues}")
    expect_equal([d[1:] for d in dialogues if "queued" not in "".join(d)],
                 [["C: NOOP", "S: 250 2.0.0 OK", "* the peer closed its side", "* closed"]], "the idle one")
    written = next(d[1:] for d in dialogues if "queued" in "".join(d))
    expect(written[0].startswith("S: 250 2.0.0 OK: queued as"), f"the other one: {written}")
    expect_equal(written[1:], ["C: NOOP", "S: 250 2.0.0 OK", "* the peer closed its side", "* closed"], "the rest of it")


test_a_session_that_runs_is_traced_from_its_next_command_on.short = True


def test_a_delivery_that_runs_is_traced_from_its_next_command_on(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, text='idle_timeout = "1h"')
    for count in (1, 2):
        expect_equal(daemon.connect().mail("to@there.test")[0], 250, "reply")
        peer.wait(count)
        if count == 1:
            daemon.wait_lines("D", 1)
            trace = add(daemon, "direction", "out", "domain", "there.test")
    daemon.wait_lines("D", 2)
    rows = said(lines_of(daemon, trace))
    expect(rows[0].startswith(f"* goes on: to 127.0.0.1:{peer.port} by binding default"), f"first line: {rows[0]}")
    expect_equal([re.sub(r"\d+", "N", t) for t in rows if t.startswith("C")],
                 ["C: MAIL FROM:<from@sender.test> SIZE=N", "C: RCPT TO:<to@there.test>", "C: DATA",
                  "C: (N octets of content)", "C: ."], "what was said")


def test_tells_how_tls_was_agreed_on_and_why_not(flow):
    c = Certificates(flow)
    peer = Peer(flow, tls=c.server())
    daemon = Daemon(flow, sink_port=peer.port, listener=tls_options(c))
    trace = add(daemon)
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    start_tls(client, c.client())
    expect_equal(client.mail("to@there.test", ehlo=False)[0], 250, "reply")
    client.close()
    peer.wait(1)
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    client.say("STARTTLS", 220)
    client.send("this is no hello of TLS\r\n")
    expect(client.ended() or True, "the end")
    client.close()
    wait_closed(daemon, trace, 3)
    rows = lines_of(daemon, trace)
    for way in ("in", "out"):
        texts = said(rows, way)
        at = next(i for i, t in enumerate(texts) if t.startswith("* TLS: TLSv1.3, TLS_"))
        expect(any(t == "C: STARTTLS" for t in texts[:at]), f"STARTTLS before it in {texts}")
        expect(any(t.startswith("C: MAIL FROM") for t in texts[at:]), f"mail in plain text in {texts}")
    expect(any(t.startswith("* TLS handshake failed: ") for t in said(rows, "in")), f"the failure in {rows}")


def test_tells_of_proxies_and_asks_again_whose_a_session_is(flow):
    daemon = Daemon(flow, listener='xclient_hosts = ( "127.0.0.1" )')
    trace = add(daemon, "peer", "192.0.2.7")
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    client.say("XCLIENT ADDR=192.0.2.7", 220)
    client.say("NOOP", 250)
    client.close()
    wait_closed(daemon, trace)
    rows = said(lines_of(daemon, trace))
    expect("* XCLIENT: the client is 192.0.2.7, told by 127.0.0.1" in rows and "C: NOOP" in rows, f"{rows}")
    behind = Daemon(flow, listener='proxy_protocol = true\nxclient_hosts = ( "127.0.0.1" )', name="2")
    trace = add(behind, "peer", "192.0.2.7")
    client = proxied(behind, b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\r\n")
    expect_equal(client.reply()[0], 220, "greeting")
    client.close()
    wait_closed(behind, trace)
    rows = said(lines_of(behind, trace))
    expect(rows[0].startswith("* from 192.0.2.7:4711 to "), f"first line {rows[0]}")
    expect_equal(rows[1], "* PROXY: the client is 192.0.2.7, told by 127.0.0.1", "second line")
    expect(rows[2].startswith("S: 220 "), f"third line {rows[2]}")


def test_says_why_a_next_hop_was_not_reached(flow):
    peer = Peer(flow, banner="554 5.3.2 not today")
    daemon = Daemon(flow, sink_port=peer.port, text='domain "gone.test" { gateway = "127.0.0.1:1" }')
    trace = add(daemon, "direction", "out")
    expect_equal(daemon.connect().mail(["a@gone.test", "b@there.test"])[0], 250, "reply")
    daemon.wait_lines("T", 1)
    wait_closed(daemon, trace, 2)
    text = "\n".join(said(lines_of(daemon, trace)))
    expect("cannot connect to 127.0.0.1: Connection refused" in text, f"refused: {text}")
    expect("S: 554 5.3.2 not today" in text, f"the banner: {text}")


def test_a_trace_stays_within_its_limits(flow):
    daemon = Daemon(flow)
    trace = add(daemon, "bytes", "1000", "file", "small.txt")
    expect_equal(os.path.basename(trace["file"]), "small.txt", "file")
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    for _ in range(30):
        client.say("NOOP", 250)
    wait_until(lambda: listed(daemon, trace)["state"] == "file is full", "the file to be full")
    expect(listed(daemon, trace)["lines_dropped"] > 0, f"{listed(daemon, trace)}")
    client.close()
    lines_of(daemon, trace)
    # The last line comes on top.
    expect(os.path.getsize(trace["file"]) < 1200, f"{os.path.getsize(trace['file'])} bytes")
    trace = add(daemon, "for", "10ms")
    wait_until(lambda: daemon.console("trace", "smtp", "list") == [], "the trace to end by itself")
    wait_until(lambda: "the trace ends" in open(trace["file"]).read(), "its last line")


def open_files(daemon):
    files = set()
    for link in pathlib.Path(f"/proc/{daemon.process.pid}/fd").iterdir():
        try:
            files.add(os.readlink(link))
        except FileNotFoundError:
            pass
    return files


def test_files_of_traces_are_new_and_below_the_logs(flow):
    daemon = Daemon(flow)
    (daemon.log / "trace-1.log").write_text("of an earlier run\n")
    trace = add(daemon)
    expect_equal((trace["trace"], trace["file"]), (2, str(daemon.log / "trace-2.log")), "number and file")
    expect(trace["file"] in open_files(daemon), "the file is open")
    remove(daemon, trace)
    expect(trace["file"] not in open_files(daemon), "the file is closed")
    expect_equal((daemon.log / "trace-1.log").read_text(), "of an earlier run\n", "the older file")
    for words, text in ((["file", "../x"], "begins with a dot"), (["file", "a/b"], "is no name of a file"),
                        (["file", "mainlog"], "is there already"), (["file", "trace-2.log"], "is there already"),
                        (["peer", "300.1.1.1"], "peer"), (["domain"], "needs a value"), (["sample", "1/0"], "sample"),
                        (["binding", "nobody"], "is no binding"), (["listener", "*:1"], "listener"),
                        (["binding", "default", "direction", "in"], "deliveries only"), (["nonsense", "1"], "no condition"),
                        (["for", "8d"], "7d"), (["max", "0"], "1 or more")):
        answer = daemon.console("trace", "smtp", "add", *words, fail=True)
        expect(text in answer, f"{words}: {answer}")
    expect("no trace 7" in daemon.console("trace", "smtp", "remove", "7", fail=True), "one that is not there")
    traces = [add(daemon) for _ in range(16)]
    expect("16 traces" in daemon.console("trace", "smtp", "add", fail=True), "a seventeenth")
    client = daemon.connect()
    client.say("EHLO client.test", 250)
    # They end with the program, whatever is open.
    expect_equal(daemon.terminate()[0], 0, "exit status")
    expect("C: EHLO client.test" in open(traces[15]["file"]).read(), "what was said before the stop")
    daemon.start()
    expect_equal(daemon.console("trace", "smtp", "list"), [], "traces after a restart")


test_files_of_traces_are_new_and_below_the_logs.short = True
