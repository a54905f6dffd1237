"""MTA-STS (RFC 8461): policies that are fetched, obeyed, kept and renewed, and what follows when they cannot
be had."""

import http.server
import re
import ssl
import threading

from certificates import Certificates
from flow import Daemon, expect, expect_equal, wait_until
from names import NameServer, Zone
from peer import Peer
from test_tls import send

ENFORCE = "version: STSv1\nmode: enforce\nmx: {mx}\nmax_age: 86400\n"


class PolicyHost:
    """An HTTPS server for the policy hosts of several domains, each with a certificate of its own. `policies`
    maps a domain to a text, or to (status, type, text), or None: it never answers. `asked` has the domains,
    one for each request; `open` and `peak`, how many are asked for now, and were at a time."""

    def __init__(self, flow, c, certificates=None, **policies):
        self.c = c
        self.policies = policies
        self.certificates = certificates or {}
        self.asked = []
        self.peak = 0
        self.open = 0
        self.lock = threading.Lock()
        self.release = threading.Event()
        host = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def do_GET(self):
                host.get(self)

            def log_message(self, *arguments):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def finish_request(self, request, address):
                try:
                    request = host.context().wrap_socket(request, server_side=True)
                    super().finish_request(request, address)
                except OSError:
                    pass

            def handle_error(self, request, address):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        flow.closers.append(self.close)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.release.set()
        self.server.shutdown()
        self.server.server_close()

    def make(self, name):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        days, signed, own = self.certificates.get(name.split(".")[1], (30, True, name))
        context.load_cert_chain(self.c.make(own, days, signed), self.c.key)
        return context

    def context(self):
        """Shows the certificate of the name that is asked for."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.c.ca, self.c.key)

        def choose(connection, name, _):
            connection.context = self.make(name)
        context.sni_callback = choose
        return context

    def get(self, handler):
        expect_equal(handler.path, "/.well-known/mta-sts.txt", "path")
        domain = re.match(r"mta-sts\.([^:]+)", handler.headers["Host"])[1]
        with self.lock:
            self.asked.append(domain)
            self.open += 1
            self.peak = max(self.peak, self.open)
        policy = self.policies.get(domain.split(".")[0], (404, "text/plain", ""))
        if policy is None:
            self.release.wait()
        with self.lock:
            self.open -= 1
        if policy is None:
            return
        status, kind, text = policy if isinstance(policy, tuple) else (200, "text/plain", policy)
        handler.send_response(status)
        if status == 301:
            handler.send_header("Location", f"https://mta-sts.good.s.test:{self.port}/.well-known/mta-sts.txt")
        handler.send_header("Content-Type", kind)
        handler.end_headers()
        handler.wfile.write(text.encode())


def told_of(daemon, domain):
    """What `tlsrpt` has of a domain: by kind of policy, sessions and failures by type."""
    found = {}
    for report in daemon.console("tlsrpt", domain)["reports"]:
        expect(re.fullmatch(r"\d{4}-\d\d-\d\dT00:00:00Z", report["date-range"]["start-datetime"]), f"{report}")
        expect(report["date-range"]["end-datetime"].endswith("T23:59:59Z"), f"{report}")
        for row in report["policies"]:
            expect_equal(row["policy"]["policy-domain"], domain, "policy-domain")
            details = {x["result-type"]: x["failed-session-count"] for x in row["failure-details"]}
            expect_equal(row["summary"]["total-failure-session-count"], sum(details.values()), "sum of failures")
            # The tests may run at midnight.
            sessions, failures = found.get(row["policy"]["policy-type"], (0, {}))
            found[row["policy"]["policy-type"]] = (
                sessions + row["summary"]["total-successful-session-count"],
                {k: failures.get(k, 0) + details.get(k, 0) for k in failures | details})
    return found


def zone_of(names, ids=None, mx="mx"):
    """Domains with a record of MTA-STS each, below s.test."""
    ids = ids or {}
    return Zone("s.test", "".join(
        f'{n} MX 10 {mx}.{n}\n{mx}.{n} A 127.0.0.1\nmta-sts.{n} A 127.0.0.1\n'
        f'_mta-sts.{n} TXT "v=STSv1; id={ids.get(n, "1")};"\n' for n in names), "plain")


def daemon_with(flow, c, names, host, peers, text="", sts="", name="", **more):
    """Mail to N.s.test goes to the port of peers[N]."""
    domains = "".join(f'domain "{n}.s.test" {{ remote_smtp_port = {p.port} }}\n' for n, p in peers.items())
    return Daemon(flow, name=name, text=f"""{names.resolver("timeout = 60s", trusted=False)} retry_interval = 1h address_family = ipv4
tls_ca = "{c.ca}" idle_timeout = 1h mta_sts {{ port = {host.port} ca = "{c.ca}" {sts} }}
{domains}{text}""", **more)


def server(c, name, **options):
    return c.server(name, **options)


def test_obeys_policies(flow):
    """Who gets mail under which policy, with which certificate."""
    c = Certificates(flow)
    mx = "mx.{}.s.test".format
    cases = {
        # Name: what the peer is, and what is expected.
        "good": (server(c, mx("good")), "pkix"),
        "wild": (server(c, mx("wild")), "pkix"),
        "untrusted": (server(c, mx("untrusted"), signed=False), "451 4.7.5 .*self.signed certificate"),
        "expired": (server(c, mx("expired"), days=0), "451 4.7.5 .*certificate has expired"),
        "named": (server(c, "else.test"), "451 4.7.5 .*hostname mismatch"),
        "plain": (None, "451 4.7.4 .*does not offer STARTTLS"),
        "unlisted": (server(c, mx("unlisted")), "451 4.7.5 .*the MTA-STS policy of unlisted.s.test lists none"),
        "testing": (server(c, "else.test"), "not verified"),
        "unlistedtesting": (server(c, "else.test"), "not verified"),
        "none": (server(c, "else.test"), "not verified"),
        "off": (server(c, "else.test"), "not verified"),
    }
    peers = {n: Peer(flow, tls=tls) for n, (tls, _) in cases.items()}
    policies = {n: ENFORCE.format(mx=mx(n)) for n in cases}
    policies["wild"] = ENFORCE.format(mx="*.wild.s.test")
    policies["unlisted"] = ENFORCE.format(mx="*.unlisted.test").replace("\n", "\r\n")
    policies["testing"] = policies["testing"].replace("enforce", "testing")
    policies["unlistedtesting"] = ENFORCE.format(mx="else.test").replace("enforce", "testing")
    policies["none"] = "version: STSv1\nmode: none\nmax_age: 100\n"
    host = PolicyHost(flow, c, **policies)
    names = NameServer(flow, zone_of(cases))
    daemon = daemon_with(flow, c, names, host, peers,
                         text='domain "off.s.test" { mta_sts = false }')
    for name in cases:
        send(daemon, f"{name}.s.test")

    def rows():
        found = {r[5]: r for r in daemon.lines("D") + daemon.lines("T")}
        return found if len(found) == len(cases) else None
    found = wait_until(rows, "a line for each domain")
    for name, (_, expected) in cases.items():
        row = found[f"{name}.s.test"]
        if expected.startswith("451"):
            expect(row[4] == "T" and re.match(expected, row[13]), f"{name}: {row}")
            expect_equal(peers[name].mails, [], name)
        else:
            tls = daemon.console("domain", f"{name}.s.test")["connections"][0]["tls"]
            expect(row[4] == "D" and tls.endswith(", " + expected), f"{name}: {row} {tls}")
            expect_equal(len(peers[name].mails), 1, name)
    expect_equal(sorted(host.asked), sorted(f"{n}.s.test" for n in cases if n != "off"), "policies that were fetched")
    hosts = {n: daemon.console("domain", f"{n}.s.test")["next_hops"] for n in ("good", "testing", "unlistedtesting")}
    expect_equal([h[0]["tls_policy"] for h in hosts.values()],
                 ["mta-sts enforce", "mta-sts testing", "mta-sts testing, not listed"], "policies as the console says")
    wanted = {"good": (1, {}), "wild": (1, {}), "untrusted": (0, {"certificate-not-trusted": 1}),
              "expired": (0, {"certificate-expired": 1}), "named": (0, {"certificate-host-mismatch": 1}),
              "plain": (0, {"starttls-not-supported": 1}), "unlisted": (0, {"validation-failure": 1}),
              "testing": (0, {"certificate-host-mismatch": 1}), "unlistedtesting": (0, {"validation-failure": 1})}
    for name, counts in wanted.items():
        expect_equal(told_of(daemon, f"{name}.s.test"), {"sts": counts}, f"{name}: reported")
    for name in ("none", "off"):
        expect_equal(told_of(daemon, f"{name}.s.test"), {"no-policy-found": (1, {})}, f"{name}: reported")
    expect_equal(len({r["policies"][0]["policy"]["policy-domain"] for r in daemon.console("tlsrpt")["reports"]}),
                 len(cases), "domains in all reports")
    expect_equal(daemon.console("tlsrpt", "else.test")["reports"], [], "reports of a domain without sessions")


def test_a_policy_that_cannot_be_had_is_none(flow):
    """And one that is broken harms no other domain."""
    c = Certificates(flow)
    large = "version: STSv1\nmode: enforce\nmx: else.test\nmax_age: 100\n" + "x: y\n" * 20000
    policies = {
        "missing": (404, "text/plain", ENFORCE.format(mx="else.test")),
        "moved": (301, "text/plain", ENFORCE.format(mx="else.test")),
        "html": (200, "text/html", ENFORCE.format(mx="else.test")),
        "large": large,
        "broken": "version: STSv1\nmode: enforce\nmax_age: 100\n",
        "stranger": ENFORCE.format(mx="else.test"),
        "old": ENFORCE.format(mx="else.test"),
        "misnamed": ENFORCE.format(mx="else.test"),
        "good": ENFORCE.format(mx="else.test"),
    }
    host = PolicyHost(flow, c, {"stranger": (30, False, "mta-sts.stranger.s.test"), "old": (0, True, "mta-sts.old.s.test"),
                                "misnamed": (30, True, "else.test")}, **policies)
    peer = Peer(flow)
    names = NameServer(flow, zone_of(policies))
    daemon = daemon_with(flow, c, names, host, {n: peer for n in policies})
    for name in policies:
        send(daemon, f"{name}.s.test")
    peer.wait(len(policies) - 1)
    expect("lists none of its mail exchangers" in daemon.wait_lines("T", 1)[0][13], "the good one")
    expect_equal(sorted(host.asked), sorted(f"{n}.s.test" for n in policies if n not in ("stranger", "old", "misnamed")),
                 "requests")
    expect_equal(daemon.counter("sts.fetch_failures"), len(policies) - 1, "failures")
    types = {n: list(told_of(daemon, f"{n}.s.test")["sts"][1]) for n in policies}
    fetch = ["sts-policy-fetch-error"]
    expect_equal(types, {"missing": fetch, "moved": fetch, "html": fetch, "large": fetch, "broken": ["sts-policy-invalid"],
                         "stranger": ["sts-webpki-invalid"], "old": ["sts-webpki-invalid"],
                         "misnamed": ["sts-webpki-invalid"], "good": ["validation-failure"]}, "reported")
    # What failed is left alone for a while.
    daemon.console("flush", "domain", "missing.s.test")
    send(daemon, "missing.s.test")
    peer.wait(len(policies))
    expect_equal(host.asked.count("missing.s.test"), 1, "requests for the missing one")


def test_keeps_policies_and_asks_again_when_their_id_changes(flow):
    """They outlive a restart, and a policy host that is gone; a new id brings a new policy."""
    c = Certificates(flow)
    peers = {n: Peer(flow, tls=server(c, "else.test")) for n in ("a", "b")}
    policies = {n: ENFORCE.format(mx=f"mx.{n}.s.test") for n in peers}
    host = PolicyHost(flow, c, **policies)
    names = NameServer(flow, zone_of(peers))
    daemon = daemon_with(flow, c, names, host, peers, text='host_failure_retry = 1s')
    for n in peers:
        send(daemon, f"{n}.s.test")
    daemon.wait_lines("T", 2)
    expect_equal(sorted(host.asked), ["a.s.test", "b.s.test"], "requests")
    expect_equal(daemon.terminate()[0], 0, "exit status")
    lines = (daemon.spool / ".mta-sts").read_text().splitlines()
    expect_equal(lines[0], "flywheel mta-sts 1", "first line of the file")
    expect(sorted(re.sub(r" \d{13} ", " T ", x) for x in lines[1:]) ==
           [f"{n}.s.test 1 T enforce 86400 mx.{n}.s.test" for n in ("a", "b")], f"file: {lines}")
    # Another name server, where b has a new id, and its host no policy; a's host is not asked.
    host.policies["a"] = None
    host.policies["b"] = "version: STSv1\nmode: none\nmax_age: 100\n"
    names.stop()
    again = NameServer(flow, zone_of(peers, {"b": "2"}))
    daemon.config.write_text(daemon.config.read_text().replace(f"@{names.port}", f"@{again.port}"))
    daemon.start()
    send(daemon, "b.s.test")
    peers["b"].wait(1)
    send(daemon, "a.s.test")
    expect("hostname mismatch" in daemon.wait_lines("T", 3)[2][13], "the old policy holds")
    expect_equal(sorted(host.asked), ["a.s.test", "b.s.test", "b.s.test"], "requests")


def test_a_slow_policy_host_holds_up_no_other_domain(flow):
    c = Certificates(flow)
    slow = [f"slow{i}" for i in range(3)]
    peers = {n: Peer(flow) for n in ("fast", *slow)}
    host = PolicyHost(flow, c, **{n: None for n in slow})
    names = NameServer(flow, zone_of(slow), Zone("o.test", "fast MX 10 mx.fast\nmx.fast A 127.0.0.1\n", "plain"))
    daemon = daemon_with(flow, c, names, host, {n: peers[n] for n in slow}, sts="timeout = 10m max_fetches = 2",
                         text=f'domain "fast.o.test" {{ remote_smtp_port = {peers["fast"].port} }}')
    for n in slow:
        send(daemon, f"{n}.s.test")
    wait_until(lambda: host.open == 2, "two fetches")
    send(daemon, "fast.o.test")
    peers["fast"].wait(1)
    # The third one waits for its turn.
    expect_equal((host.peak, len(host.asked)), (2, 2), "fetches")
    expect_equal([len(peers[n].mails) for n in slow], [0] * 3, "mail of those that wait")
    # Now none is answered, and none of them has a policy.
    host.release.set()
    for n in slow:
        peers[n].wait(1)
    status, _ = daemon.terminate()
    expect_equal(status, 0, "exit status")


def test_waits_for_a_policy_no_longer_than_told(flow):
    c = Certificates(flow)
    peer = Peer(flow)
    host = PolicyHost(flow, c, slow=None)
    names = NameServer(flow, zone_of(["slow"]))
    daemon = daemon_with(flow, c, names, host, {"slow": peer}, sts="timeout = 300ms")
    send(daemon, "slow.s.test")
    peer.wait(1)


def test_stops_while_a_policy_is_fetched(flow):
    c = Certificates(flow)
    host = PolicyHost(flow, c, slow=None)
    names = NameServer(flow, zone_of(["slow"]))
    daemon = daemon_with(flow, c, names, host, {"slow": Peer(flow)}, sts="timeout = 10m")
    send(daemon, "slow.s.test")
    wait_until(lambda: host.open == 1, "the fetch")
    expect_equal(daemon.terminate()[0], 0, "exit status")


def test_keeps_so_many_policies(flow):
    c = Certificates(flow)
    names_of = ["d", "e", "f"]
    peers = {n: Peer(flow, tls=server(c, f"mx.{n}.s.test")) for n in names_of}
    host = PolicyHost(flow, c, **{n: ENFORCE.format(mx=f"mx.{n}.s.test") for n in names_of})
    names = NameServer(flow, zone_of(names_of))
    daemon = daemon_with(flow, c, names, host, peers, sts="cache_entries = 2")
    for n in names_of:
        send(daemon, f"{n}.s.test")
        peers[n].wait(1)
    expect_equal(daemon.counter("sts.kept"), 2, "policies kept")
