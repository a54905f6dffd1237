"""HTTP: metrics, health, the console's answers, events; who may ask, and how much; Graphite."""

import contextlib
import json
import re
import select
import socket
import subprocess
import threading

from flow import PATIENCE, Sink, expect, expect_equal, free_port, wait_until
from http_client import Events, Server, promtool
from peer import Peer

HELLO = "Subject: hello\r\n\r\nhello\r\n"


def send(server, recipients):
    code, text = server.daemon.connect().mail(recipients, body=HELLO)
    expect_equal(code, 250, f"reply ({text})")


def gone(sock):
    """The server has closed."""
    with contextlib.suppress(ConnectionError):
        return sock.recv(1 << 16) == b""
    return True


class SilentNames:
    """A name server that never answers: who asks it waits."""

    def __init__(self, flow):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        flow.closers.append(self.socket.close)
        self.text = f'''resolver {{ forwarders = ( "127.0.0.1@{self.socket.getsockname()[1]}" ) timeout = "600s" }}'''


# ---- what is there ----


def test_answers_by_http_what_the_console_answers(flow):
    peer = Peer(flow, rcpt=lambda session: "450 4.2.1 later" if "later" in session.rcpt else True)
    server = Server(flow, sink_port=peer.port, text='retry_interval = "1h"')
    send(server, ["a@now.test", "b@later.test"])
    server.daemon.wait_lines("D", 1)
    wait_until(lambda: server.daemon.console("domain", "later.test")["queue"]["delayed"] == 1, "a delayed message")
    for path, words in (("domain/later.test", ["domain", "later.test"]), ("mailq/5", ["mailq", "5"]),
                        ("domain/later.test/default", ["domain", "later.test", "default"]),
                        ("mailq?args=5+default", ["mailq", "5", "default"]), ("mailq?args=5&args=default", ["mailq", "5", "default"]),
                        ("domain/Later%2Etest/", ["domain", "later.test"]), ("bindings", ["bindings"]),
                        ("find/all", ["find", "all"]), ("find/recipient/b@later.test", ["find", "recipient", "b@later.test"]),
                        ("mailq/newer/1d", ["mailq", "newer", "1d"]), ("bounce_stats", ["bounce_stats"]), ("help/domain%20all", ["help", "domain all"]),
                        ("DOMAIN/later.test", ["domain", "later.test"])):
        # But for times; connections come to rest between one question and the other.
        wait_until(lambda: len({re.sub(r'("[a-z_]*(?:_s|_at|_ms)": )[^,}]*', r"\1", json.dumps(v))
                                for v in (server.api(path), server.daemon.console(*words))}) == 1, f"the same by {path}")
    listed = {row["command"] for row in server.get("/api/v1").json()["result"]}
    expect({"summary", "domain", "mailq"} <= listed and not {"shutdown", "flush domain"} & listed, f"listed: {listed}")
    for command in sorted(listed - {"domain", "site", "active", "delayed", "binding", "message", "dig", "dns_cache lookup"}):
        answer = server.ask("/api/v1/" + command.replace(" ", "/"))
        # Others than those of this test may want arguments.
        expect(answer.status in (200, 400), f"{command}: {answer.status} {answer.body[:200]}")
    for path, status, text in (("/api/v1/nonsense", 404, "unknown command"), ("/api/v1/domain", 400, "usage:"),
                               ("/api/v1/domain/nowhere.test", 404, "nowhere.test"), ("/api/v1/mailq/x/y/z", 400, "no selector"),
                               ("/api/v1/message/nonsense", 400, "not a message id"), ("/api/v1/active/many", 400, "whole number"),
                               ("/api/v1/message/" + "0" * 26, 404, "0" * 26), ("/api/v1/shutdown", 405, "changes something"),
                               ("/api/v1/flush/domain/later.test", 405, "changes something"), ("/nothing", 404, "nothing is there"),
                               ("/metricsx", 404, "nothing is there"), ("/api/v1/domain/a%0ab", 400, "control character"),
                               ("/api/v1/domain/a%00b", 400, "control character"), ("/api/v1/domain/a%2", 400, "percent"),
                               ("/api/v1/domain/a%22b", 400, "double quote"), ("/api/v1/mailq?n=5", 400, "parameter"),
                               ("/api/v1/domain/" + "x" * 5000, 400, "too long")):
        answer = server.ask(path)
        found = answer.json()
        expect_equal((answer.status, found["ok"]), (status, False), f"{path[:100]} ({found})")
        expect(text in found["error"], f"{path[:100]}: {found}")
        expect(status != 405 or answer.headers["Allow"] == "GET, HEAD", f"{path}: {answer.headers}")
    expect_equal(server.daemon.console("summary")["delayed_queue_size"], 1, "messages that wait still")


test_answers_by_http_what_the_console_answers.short = True
test_answers_by_http_what_the_console_answers.backends = ["uring", "epoll", "poll"]


def test_shows_others_on_one_connection_and_by_curl(flow):
    server = Server(flow)
    connection = server.connect()
    for path in ("/", "/healthz", "/metrics", "/api/v1/summary", "/nothing") * 3:
        answer = server.ask(path, connection=connection)
        expect_equal(answer.status, 404 if path == "/nothing" else 200, path)
        expect_equal(answer.headers["Cache-Control"], "no-store", f"{path}: may it be kept")
    answer = server.ask("/metrics", method="HEAD", connection=connection)
    expect_equal((answer.status, answer.body), (200, b""), "HEAD")
    page = server.ask("/", connection=connection)
    expect(page.headers["Content-Type"].startswith("text/html") and b"</html>" in page.body, f"the page: {page.body[:100]}")
    for path in ("healthz/live", "metrics", "api/v1/version"):
        done = subprocess.run(["curl", "-sS", "--fail", f"http://127.0.0.1:{server.port}/{path}"], capture_output=True, timeout=PATIENCE)
        expect_equal((done.returncode, done.stderr), (0, b""), f"curl of {path}")
    many = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20 + b"GET /healthz HTTP/1.0\r\n\r\n"
    s = server.raw(many)
    with s.makefile("rb") as f:
        expect_equal(f.read().count(b"200 OK"), 21, "answers to requests in one piece")


# ---- metrics ----


def stable_counters(server):
    """Counters that did not move while the metrics were asked for, and the metrics."""
    before = server.daemon.console("counters")
    metrics = server.metrics()
    after = {row["counter"]: row["value"] for row in server.daemon.console("counters")}
    return {row["counter"]: row["value"] for row in before if after[row["counter"]] == row["value"]}, metrics


def test_counts_by_http_what_the_console_counts(flow):
    def rcpt(session):
        return "550 5.1.1 no" if "bad" in session.rcpt else "450 4.2.1 later" if "later" in session.rcpt else True
    peer = Peer(flow, rcpt=rcpt)
    server = Server(flow, sink_port=peer.port, text='metrics_interval = "100ms"\nretry_interval = "1h"\ngenerate_bounces = false')
    for i in range(6):
        send(server, [f"a@good{i % 3}.test", f"b@bad{i % 2}.test", "c@later.test"])
    server.daemon.wait_lines("D", 6)
    server.daemon.wait_lines("P", 6)
    server.daemon.wait_lines("T", 6)
    wait_until(lambda: server.daemon.console("summary")["delayed_queue_size"] == 6, "what waits")
    wait_until(lambda: server.metrics().value("flywheel_queue_deliveries", state="delayed") == 6, "fresh numbers")
    counters, metrics = stable_counters(server)
    missing = []
    for name, value in counters.items():
        prefix, _, rest = re.match(r"((?:scheduler|spool|worker)\.\d+|log\.[a-z]+log|[a-z0-9_]+)(\.)(.*)", name).groups()
        kind = prefix.split(".")[0]
        base = re.sub(r"_(ns|us|ms)$", "_seconds", rest.replace(".", "_"))
        found = [(v, end) for k in (kind, "agent", "thread") for owner in ("agent", "thread") for end in ("", "_total")
                 for v in [metrics.value(f"flywheel_{k}_{base}{end}", **{owner: prefix})] if v is not None]
        divisor = {"ns": 1e9, "us": 1e6, "ms": 1e3}.get(rest.rpartition("_")[2], 1)
        # Gauges may come back to what they were.
        if len(found) != 1 or found[0][1] == "_total" and abs(found[0][0] - value / divisor) > 1e-6 * found[0][0]:
            missing.append((name, value, found))
    expect(len(counters) > 100 and not missing, f"counters that are otherwise in the metrics: {missing[:5]}")
    for name, total in (("delivered", 6), ("failed", 6), ("deferred", 6)):
        for kind in ("domain", "binding"):
            expect_equal(metrics.sum(f"flywheel_{kind}_{name}_total"), total, f"{name} by {kind}")
    expect_equal(metrics.value("flywheel_domain_delivered_total", domain="good1.test"), 2, "delivered to one domain")
    expect_equal(metrics.value("flywheel_domain_delayed_deliveries", domain="later.test"), 6, "waiting for one domain")
    expect_equal(metrics.value("flywheel_binding_failed_total", binding="default"), 6, "failed of one binding")
    expect_equal(metrics.sum("flywheel_store_seconds_count"), 6, "messages that the spool was waited for with")
    expect_equal(metrics.sum("flywheel_spool_commit_seconds_count"), metrics.sum("flywheel_spool_commits_total"), "batches")
    expect_equal(metrics.sum("flywheel_spool_batch_records_sum"), metrics.sum("flywheel_spool_records_total"), "records")
    expect(metrics.value("process_resident_memory_bytes") > 1 << 20 and metrics.value("process_cpu_seconds_total") > 0
           and metrics.sum("flywheel_thread_cpu_seconds_total") > 0, "what the process takes")
    rows = {row["agent"]: row for row in server.daemon.console("threads")["agents"]}
    for name in ("flywheel_agent_work_ratio", "flywheel_agent_ring_tasks"):
        expect_equal(metrics.labels(name, "agent"), set(rows), f"agents of {name}")
    wait_until(lambda: server.metrics().value("process_open_fds"), "the number of open files")
    check = promtool()
    if check:
        done = subprocess.run([check, "check", "metrics"], input=server.get("/metrics").body, capture_output=True)
        expect_equal((done.returncode, done.stdout + done.stderr), (0, b""), "what promtool says")


test_counts_by_http_what_the_console_counts.short = True
test_counts_by_http_what_the_console_counts.backends = ["uring", "epoll", "poll"]


def test_has_series_for_so_many_domains_and_one_for_the_rest(flow):
    sink = Sink(flow)
    server = Server(flow, sink_port=sink.port, text='metrics_interval = "100ms"\nmetrics_top_domains = 2\nbinding "b" { }')
    sizes = {"big.test": 5, "bigger.test": 6, "small.test": 1, "other": 2, "tiny.test": 1}
    for domain, count in sizes.items():
        for i in range(count):
            field = "X-Binding: b\r\n" if i % 2 else ""
            code, text = server.daemon.connect().mail(f"to@{domain}", body=field + HELLO)
            expect_equal(code, 250, f"reply ({text})")
    server.daemon.wait_lines("D", 15)

    def delivered():
        metrics = server.metrics()
        name = "flywheel_domain_delivered_total"
        return {d: metrics.value(name, domain=d) for d in metrics.labels(name, "domain")}
    # What two bindings sent to a domain is added up.
    wait_until(lambda: delivered() == {"bigger.test": 6, "big.test": 5, "other": 4}, f"those that are large, not {delivered()}")
    for _ in range(7):
        send(server, "to@small.test")
    server.daemon.wait_lines("D", 22)
    wait_until(lambda: delivered() == {"small.test": 8, "bigger.test": 6, "other": 8}, "one that has grown")
    for _ in range(7):
        send(server, "to@other")
    server.daemon.wait_lines("D", 29)
    # A domain by the name of the rest is in the rest.
    wait_until(lambda: delivered() == {"small.test": 8, "other": 21}, "a domain called other")
    expect_equal({b: server.metrics().value("flywheel_binding_delivered_total", binding=b) for b in ("b", "default")},
                 {"b": 6, "default": 23}, "by binding")


def test_walks_over_domains_no_oftener_than_told(flow):
    sink = Sink(flow)
    server = Server(flow, sink_port=sink.port, text='metrics_interval = "1h"')
    name = "flywheel_domain_delivered_total"
    expect_equal(server.metrics().labels(name, "domain"), {"other"}, "domains before mail")
    send(server, "to@a.test")
    server.daemon.wait_lines("D", 1)
    for _ in range(3):
        metrics = server.metrics()
        expect_equal(metrics.labels(name, "domain"), {"other"}, "domains, as they were")
    expect_equal(metrics.sum("flywheel_scheduler_delivered_total"), 1, "a counter, as it is")
    expect_equal(server.counter("http.gatherings"), 1, "walks")


# ---- health ----


def test_says_whether_mail_is_taken(flow):
    server = Server(flow)
    for path, word in (("/healthz", "ready"), ("/healthz/ready", "ready"), ("/healthz/live", "live")):
        answer = server.get(path).json()
        expect_equal((answer["ok"], answer["status"]), (True, word), path)
    full = Server(flow, name="full", text='spool { min_free = "60000G" }')
    answer = wait_until(lambda: (a := full.ask("/healthz")).status == 503 and a, "no readiness with a full spool")
    expect("spool" in answer.json()["reason"] and not answer.json()["ok"], f"the reason: {answer.body}")
    expect_equal(full.ask("/healthz/ready").status, 503, "status of readiness")
    expect_equal(full.ask("/healthz/live").status, 200, "status of life")
    expect_equal(full.metrics().value("flywheel_accepting"), 0, "metric")
    expect_equal(server.metrics().value("flywheel_accepting"), 1, "metric")
    # Mail under reception that takes more than the budget; who stalls for long gives way, so once more.
    crowded = Server(flow, name="crowded", text='reception_budget = "64K"')

    def refusal():
        clients = [crowded.daemon.connect() for _ in range(2)]
        for client in clients:
            for line in ("EHLO client.test", "MAIL FROM:<a@sender.test>", "RCPT TO:<b@x.test>", "DATA"):
                client.say(line)
            client.send(("x" * 70 + "\r\n") * 700)
        answers = (crowded.ask("/healthz") for _ in range(50))
        found = next((a for a in answers if a.status == 503), None)
        for client in clients:
            client.close()
        return found
    expect("budget" in wait_until(refusal, "no readiness above the budget").json()["reason"], "the reason")
    wait_until(lambda: crowded.ask("/healthz").status == 200, "readiness again")


# ---- who may ask, and how much ----


def test_answers_only_those_who_know_the_token(flow):
    (flow.path / "token").write_text("of-a-file-0123456789\n")
    for name, listen, token in (("inline", 'token = "open-sesame"', "open-sesame"),
                                ("file", f'token_file = "{flow.path}/token"', "of-a-file-0123456789")):
        server = Server(flow, name=name, host="0.0.0.0", listen=listen)
        for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {token}x"}, {"Authorization": token},
                        {"Authorization": f"Bearer {token[:-1]}"}, {"Authorization": f"Bearer {token[:-1]}x"}, {"Authorization": f"Basic {token}"}):
            for path in ("/metrics", "/api/v1/summary", "/events", "/healthz"):
                answer = server.ask(path, headers=headers)
                expect_equal((answer.status, answer.headers.get("WWW-Authenticate")), (401, "Bearer"), f"{path} with {headers}")
                expect(token.encode() not in answer.body, "the token is told")
        expect_equal(server.counter("http.refused_token"), 28, "refusals that were counted")
        expect_equal(server.ask("/").status, 200, "status of the page, which tells nothing")
        server.token = token
        for path in ("/metrics", "/api/v1/summary", "/healthz"):
            server.get(path)
        server.get("/healthz", headers={"Authorization": f"bearer  {token}"})
        events = Events(server)
        wait_until(lambda: events.events, "an event")
        events.close()
        # With a token, names do not matter.
        server.get("/healthz", headers={"Host": "proxy.example"})


def test_wants_a_token_where_others_could_ask(flow):
    config = flow.path / "open.conf"
    config.write_text('http_listener { listen "*:8025" { } }\n')
    done = subprocess.run([flow.program("flywheeld"), "--check", "--config", config], capture_output=True, text=True)
    expect(done.returncode == 1 and "open.conf:1: " in done.stderr and "expected token or token_file" in done.stderr,
           f"{done.returncode} {done.stderr}")


def test_answers_no_page_that_calls_us_by_another_name(flow):
    server = Server(flow)
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "flow.test.evil.example"):
        expect_equal(server.ask("/api/v1/summary", headers={"Host": host}).status, 403, f"status for {host}")
    for host in ("127.0.0.1", f"localhost:{server.port}", "LOCALHOST", "[::1]:80", "flow.test", "192.0.2.1:80"):
        expect_equal(server.ask("/api/v1/summary", headers={"Host": host}).status, 200, f"status for {host}")
    expect_equal(server.counter("http.refused_host"), 4, "refusals that were counted")


def test_refuses_what_is_no_question(flow):
    server = Server(flow, listen='max_header_size = "8K"')
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "BREW"):
        answer = server.ask("/metrics", method=method)
        expect_equal((answer.status, answer.headers.get("Allow")), (405, "GET, HEAD"), method)
    expect_equal(server.counter("http.refused_method"), 5, "methods refused")
    expect_equal(server.ask("/metrics", method="POST", body="x" * 100).status, 405, "status of POST with a body")
    expect_equal(server.ask("/metrics", body="x" * 100).status, 413, "status of GET with a body")
    s = server.raw(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n")
    expect(s.recv(100).startswith(b"HTTP/1.1 413 "), "an answer to a body in chunks")
    expect_equal(server.counter("http.refused_body"), 2, "bodies refused")
    expect_equal(server.ask("/healthz", headers={"X-Long": "x" * 3000}).status, 200, "status with a long header")
    expect(server.ask("/healthz", headers={"X-Long": "x" * 20000}).status in (413, 431), "a header that is too long is taken")
    for data in (b"nonsense\r\n\r\n", b"GET " + b"/" * 20000 + b" HTTP/1.1\r\n\r\n",
                 b"GET / HTTP/1.1\r\nX: " + b"x" * 20000 + b"\r\n\r\n"):
        s = server.raw(data)
        reply = b""
        with contextlib.suppress(ConnectionError):
            while more := s.recv(4096):
                reply += more
        expect(reply == b"" or reply.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4", b"HTTP/1.1 505")), f"{data[:20]}: {reply[:100]}")
    wait_until(lambda: server.counter("http.malformed") >= 3, "what was not understood to be counted")
    larger = Server(flow, name="larger", scope='max_header_size = "64K"')
    expect_equal(larger.ask("/healthz", headers={"X-Long": "x" * 20000}).status, 200, "status with more room")


def test_serves_so_many_at_a_time(flow):
    """Requests, followers of events, connections: each has a limit, and a count of those who came too late."""
    names = SilentNames(flow)
    server = Server(flow, listen="max_requests = 2 max_event_clients = 1 listener_sessions = 6 max_connections_per_peer = 5",
                    text=names.text)
    pending = [server.raw(b"GET /api/v1/dig/x.test/MX HTTP/1.1\r\nHost: localhost\r\n\r\n") for _ in range(2)]
    wait_until(lambda: server.counter("http.requests_open") == 2, "two requests under way")
    answer = server.ask("/metrics")
    expect_equal((answer.status, answer.headers["Retry-After"]), (503, "1"), "a third one")
    expect_equal(server.counter("http.refused_busy"), 1, "refusals that were counted")
    # Events are not counted among them.
    first = Events(server)
    wait_until(lambda: first.events, "an event")
    second = Events(server)
    expect_equal((first.status, second.status), (200, 503), "followers")
    expect_equal(server.counter("http.refused_events"), 1, "refusals that were counted")
    second.close()
    wait_until(lambda: server.counter("http.connections_open") == 3, "the others to be gone")
    silent = [server.raw() for _ in range(2)]
    wait_until(lambda: server.counter("http.connections_open") == 5, "silent clients")
    expect(gone(server.raw()), "a sixth connection from one address is served")
    wait_until(lambda: server.daemon.counters("master.*")["master.refused_peer"] >= 1, "it to be counted")
    other = socket.create_connection(("127.0.0.1", server.port), PATIENCE, ("127.0.0.2", 0))
    wait_until(lambda: server.counter("http.connections_open") == 6, "one from another address")
    expect(gone(socket.create_connection(("127.0.0.1", server.port), PATIENCE, ("127.0.0.3", 0))), "a seventh one is served")
    expect_equal(server.daemon.counters("master.*")["master.refused_connections"], 1, "refusals that were counted")
    for s in [*pending, *silent, other]:
        s.close()
    first.close()
    # Those who wait for the name service are let go of when it has been given up, at the end at latest.
    expect_equal(server.daemon.terminate()[0], 0, "exit status")


def test_dismisses_clients_that_wait(flow):
    names = SilentNames(flow)
    server = Server(flow, listen="idle_time = 1s", text=names.text + '\nmetrics_interval = "1h"')
    # These wait for us, not we for them.
    pending = server.raw(b"GET /api/v1/dig/x.test/MX HTTP/1.1\r\nHost: localhost\r\n\r\n")
    events = Events(server)
    wait_until(lambda: server.counter("http.requests_open") == 1 and events.events, "a request under way, and events")
    silent = [server.raw(), server.raw(b"GET /hea")]
    used = server.connect()
    server.ask("/healthz", connection=used)
    for s in [*silent, used.sock]:
        expect(gone(s), "a client that asks nothing is waited for")
    wait_until(lambda: server.counter("http.timeouts") == 3, "them to be counted")
    # One that brings its header by the byte.
    s = server.raw(b"GET /healthz HTTP/1.1\r\nX: ")
    s.settimeout(0.05)

    def dismissed():
        try:
            s.sendall(b"x")
            return s.recv(1000) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True
    wait_until(dismissed, "one that never comes to an end to be dismissed")
    wait_until(lambda: server.counter("http.timeouts") == 4, "it to be counted")
    expect(not select.select([pending], [], [], 0)[0] and events.thread.is_alive(), "one that waits for us is dismissed")
    expect_equal(server.counter("http.requests_open"), 1, "requests under way")


def test_slow_readers_hold_up_nobody(flow):
    """An answer of many megabytes that nobody reads: others are served, and in the end it is given up. One that is
    read comes whole, at the stop, too."""
    server = Server(flow, listen="idle_time = 2s",
                    text='suspend_delivery = true\nmax_recipients_per_message = 10000\nstop_timeout = "10m"')
    client = server.daemon.connect()
    for n in range(40):
        client.mail([f"to@domain-{n}-{i}.with-a-name-that-is-not-short.test" for i in range(500)], ehlo=n == 0)
    client.close()
    wait_until(lambda: server.daemon.console("summary")["domains"] == 20000, "all domains")

    def slow_reader(buffer=4096):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        s.connect(("127.0.0.1", server.port))
        s.sendall(b"GET /api/v1/domain/all HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return s
    slow = [slow_reader() for _ in range(5)]
    whole = server.get("/api/v1/domain/all")
    expect_equal(len(whole.json()["result"]["domains"]), 20000, "rows")
    expect(len(whole.body) > 3 << 20, f"{len(whole.body)} bytes")
    expect_equal(server.get("/healthz").status, 200, "status for others")
    wait_until(lambda: server.counter("http.timeouts") >= 5, "them to be given up")
    wait_until(lambda: server.counter("http.requests_open") == 0, "their answers to be freed")
    last = slow_reader(1 << 16)
    wait_until(lambda: server.counter("http.requests_open") == 1, "one more")
    server.daemon.process.terminate()
    read = bytearray()
    while more := last.recv(1 << 20):
        read += more
    head, _, body = bytes(read).partition(b"\r\n\r\n")
    expect_equal(len(body), int(re.search(rb"Content-Length: (\d+)", head)[1]), "bytes of the answer under way")
    expect_equal(server.daemon.process.wait(PATIENCE), 0, "exit status")


# ---- events ----


def test_tells_events_to_a_hundred_clients(flow):
    peer = Peer(flow, rcpt=lambda session: "550 5.1.1 <%s> nobody" % session.rcpt if "bad" in session.rcpt else True)
    server = Server(flow, sink_port=peer.port, text='metrics_interval = "200ms"\ngenerate_bounces = false')
    clients = [Events(server) for _ in range(100)]
    expect_equal({c.status for c in clients}, {200}, "status")
    expect_equal(clients[0].reply.getheader("Content-Type"), "text/event-stream", "type")
    wait_until(lambda: server.counter("http.event_clients") == 100, "all to be counted")
    for i in range(4):
        send(server, [f"a{i}@good.test", f"b{i}@bad.test"])
    server.daemon.wait_lines("P", 4)
    server.daemon.wait_lines("D", 4)

    def all_know():
        return all(c.events and c.events[-1][2]["totals"]["failed"] == 4 and c.events[-1][2]["refusals"]
                   and sum(d["delivered"] for d in c.events[-1][2]["domains"]) == 4 for c in clients)
    wait_until(all_know, "all to know")
    latest = clients[0].events[-1][2]
    expect_equal(latest["refusals"], [{"text": "550 5.1.1 <address> nobody", "count": 4}], "what was refused")
    totals = latest["totals"]
    expect_equal((totals["received"], totals["delivered"], totals["failed"]), (4, 4, 4), "totals")
    expect_equal({d["domain"]: (d["delivered"], d["failed"]) for d in latest["domains"]},
                 {"good.test": (4, 0), "bad.test": (0, 4)}, "domains")
    expect_equal([b["binding"] for b in latest["bindings"]], ["default"], "bindings")
    expect({"scheduler.0", "spool.0", "wheel"} <= {a["agent"] for a in latest["agents"]}, f"agents: {latest['agents']}")
    expect(all(t["cpu_ratio"] is not None and t["cpu_ratio"] >= 0 for t in latest["threads"]), f"threads: {latest['threads']}")
    expect(latest["queues"]["total"] == 0 and latest["program"]["hostname"] == "flow.test", f"{latest['queues']} {latest['program']}")
    for c in clients:
        numbers = [number for number, _, _ in c.events]
        expect(numbers == sorted(set(numbers)) and {kind for _, kind, _ in c.events} == {"stats"}, f"numbers: {numbers}")
        expect(any(e["rates"]["received_per_s"] for _, _, e in c.events), "no rate of what was received")
    # One walk for all of them.
    expect(server.counter("http.gatherings") <= clients[0].events[-1][0] + 5,
           f"{server.counter('http.gatherings')} walks for {clients[0].events[-1][0]} events")
    for c in clients:
        c.close()
    wait_until(lambda: server.counter("http.event_clients") == 0, "all to be gone")


test_tells_events_to_a_hundred_clients.backends = ["uring", "epoll", "poll"]


def test_skips_events_for_who_is_slow(flow):
    server = Server(flow, text='metrics_interval = "100ms"', listen="idle_time = 2s")
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", server.port))
    slow.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    quick = Events(server)
    wait_until(lambda: server.counter("http.event_clients") == 2, "both")
    count = len(quick.events)
    wait_until(lambda: len(quick.events) > count + 5, "events for the quick one")
    quick.close()
    slow.close()
    wait_until(lambda: server.counter("http.event_clients") == 0, "both to be gone")


# ---- the end ----


def test_stops_in_order_with_clients_of_each_kind(flow):
    names = SilentNames(flow)
    server = Server(flow, text=names.text + '\nmetrics_interval = "100ms"')
    events = server.raw(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    read = b""
    while b"\nevent: stats\n" not in read:
        read += events.recv(1 << 16)
    kept = server.connect()
    server.ask("/healthz", connection=kept)
    silent = server.raw()
    waits = server.raw(b"GET /api/v1/dig/x.test/MX HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wait_until(lambda: server.counter("http.requests_open") == 1, "a request under way")
    expect_equal(server.daemon.terminate()[0], 0, "exit status")
    while more := events.recv(1 << 16):
        read += more
    expect(read.endswith(b"\n\n\r\n0\r\n\r\n"), f"events do not end in order: {read[-200:]}")
    expect(gone(kept.sock) and gone(silent), "connections are open")
    expect(b"HTTP/1.1 " in waits.recv(1000), "the one under way was not answered")


test_stops_in_order_with_clients_of_each_kind.short = True
test_stops_in_order_with_clients_of_each_kind.backends = ["uring", "epoll", "poll"]


def test_stops_although_a_client_takes_no_answers(flow):
    server = Server(flow, listen='idle_time = "1d"', text='stop_timeout = "500ms"')
    # More than sockets hold.
    deaf = server.raw(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 400)
    wait_until(lambda: server.counter("http.requests_open") == 1, "an answer under way")
    expect_equal(server.daemon.terminate()[0], 0, "exit status")
    deaf.close()


# ---- Graphite ----


class Carbon:
    """Takes lines; a listening socket of a backlog of none when it does not."""

    def __init__(self, flow, takes=True, port=0):
        self.server = socket.create_server(("127.0.0.1", port), backlog=16 if takes else 0)
        self.port = self.server.getsockname()[1]
        self.batches = []
        self.fillers = []
        flow.closers.append(self.close)
        if takes:
            threading.Thread(target=self.take, daemon=True).start()
        else:
            self.fill()

    def fill(self):
        """Until the kernel answers no further connect."""
        while True:
            s = socket.socket()
            s.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                s.connect(("127.0.0.1", self.port))
            self.fillers.append(s)
            if not select.select([], [s], [], 0.5)[1]:
                return

    def answer(self):
        """From now on it takes lines; those that fillers have not sent are empty batches, which count for nothing."""
        for s in self.fillers:
            s.close()
        threading.Thread(target=self.take, daemon=True).start()

    def take(self):
        with contextlib.suppress(OSError):
            while True:
                s, _ = self.server.accept()
                with s, s.makefile() as f:
                    text = f.read()
                if text:
                    self.batches.append(text)

    def close(self):
        for s in [self.server, *self.fillers]:
            s.close()


def graphite(port, interval="200ms", prefix=""):
    return f'graphite {{ server = "127.0.0.1:{port}" interval = "{interval}" {prefix} }}\nmetrics_interval = "100ms"\n'


def values(batch):
    rows = [line.split(" ") for line in batch.splitlines()]
    expect(all(len(row) == 3 and re.fullmatch(r"[A-Za-z0-9_.-]+", row[0]) and row[1].isdigit() and row[2].isdigit() for row in rows),
           f"lines: {batch[:300]}")
    expect_equal(len({row[0] for row in rows}), len(rows), "names")
    return {row[0]: int(row[1]) for row in rows}


def test_sends_metrics_to_graphite(flow):
    sink = Sink(flow)
    carbon = Carbon(flow)
    server = Server(flow, sink_port=sink.port, text=graphite(carbon.port, prefix='prefix = "mail.here"'))
    send(server, "to@a.b.test")
    server.daemon.wait_lines("D", 1)
    wait_until(lambda: carbon.batches and "mail.here.domains.a_b_test.delivered 1 " in carbon.batches[-1], "the delivery")
    found = values(carbon.batches[-1])
    expect_equal(sum(found[f"mail.here.scheduler_{i}.delivered"] for i in range(2)), 1, "delivered")
    expect_equal((found["mail.here.bindings.default.delivered"], found["mail.here.domains.other.delivered"]), (1, 0), "sums")
    expect(found["mail.here.threads.scheduler_0.cpu_ms"] > 0, "CPU time")
    expect(all(b.endswith("\n") for b in carbon.batches), "a batch that is not whole")
    expect_equal(server.daemon.terminate()[0], 0, "exit status")


test_sends_metrics_to_graphite.short = True
test_sends_metrics_to_graphite.backends = ["uring", "epoll", "poll"]


def test_sends_metrics_without_an_http_listener_and_after_failures(flow):
    port = free_port()
    server = Server(flow, listen="enable = false", text=graphite(port))

    def counter(name):
        return server.daemon.counters(f"scheduler.0.graphite.{name}")[f"scheduler.0.graphite.{name}"]
    wait_until(lambda: counter("failed") >= 2, "failures")
    carbon = Carbon(flow, port=port)
    wait_until(lambda: len(carbon.batches) >= 2, "batches")
    expect("flywheel.flow_test.scheduler_0.received" in values(carbon.batches[0]), "the prefix that the hostname makes")
    expect(counter("sent") >= 1, "nothing was counted as sent")
    wait_until(lambda: any("graphite 127.0.0.1" in row["error"] for row in server.daemon.console("errors")["errors"]), "the error")


def test_gives_up_on_a_graphite_server_that_does_not_answer(flow):
    sink = Sink(flow)
    carbon = Carbon(flow, takes=False)
    server = Server(flow, sink_port=sink.port, text=graphite(carbon.port))

    def counter(name):
        return server.daemon.counters(f"*.graphite.{name}")[f"scheduler.graphite.{name}"]

    def given_up():
        return counter("given_up")
    wait_until(lambda: given_up() >= 2, "giving up")
    send(server, "to@a.test")
    server.daemon.wait_lines("D", 1)
    expect_equal(server.get("/healthz").status, 200, "status")
    # What was not sent then is not sent now.
    count = given_up()
    wait_until(lambda: given_up() >= count + 2, "newer numbers")
    # The kernel may have taken one for the server before its queue was full.
    taken = counter("sent")
    carbon.answer()
    wait_until(lambda: len(carbon.batches) > taken, "a batch")
    expect("domains.a_test.delivered 1 " in carbon.batches[taken], f"old numbers: {carbon.batches[taken][-500:]}")
    expect_equal(server.daemon.terminate()[0], 0, "exit status")
